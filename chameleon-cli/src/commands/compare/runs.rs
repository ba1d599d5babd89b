//! The trainings and scorings of one comparison, each done once and kept.

use std::time::Instant;

use chameleon_hypernet::ConditionControl;
use chameleon_models::{
    Adapter, AdapterConfig, HiddenCache, HiddenStates, MemoryConfig, ScoreSummary, Trainee,
    Trainer, adapter,
};

use crate::{
    args::CompareMethod,
    commands::{
        Context,
        method::{self, HeadMethod},
        prepare::{Part, Prepared},
        states::KnownStates,
    },
    errors::CliError,
    memory,
    resolve::CompareConfig,
};

use super::course::{Course, Keep};
use super::protocol::{self, MemoryControl, Trained};
use super::recall::{Recall, Scores};
use super::store::{KeptEpoch, RunName, ScorePlace, ScoredRun, Store, TrainedRun};

/// Everything that the runs of a comparison share.
pub(super) struct Comparison<'a> {
    pub(super) config: &'a CompareConfig,
    pub(super) prepared: &'a Prepared,
    pub(super) test: &'a Part,
    /// Texts of the test that share a condition, where that is not the batch size.
    pub(super) group_size: Option<usize>,
    pub(super) states: &'a States,
    /// What groups remember, if a method asks for it.
    pub(super) recall: Option<&'a Recall>,
    pub(super) store: Store,
    pub(super) context: &'a Context,
}

/// Hidden states of the frozen model, as far as no layer in training would change them.
pub(super) struct States {
    pub(super) train: KnownStates,
    pub(super) valid: KnownStates,
    pub(super) test: KnownStates,
    /// Those before the head, which the frozen model is scored by.
    pub(super) frozen_test: HiddenCache,
}

/// All runs of one method.
#[derive(Debug)]
pub(super) struct MethodRuns {
    pub(super) method: CompareMethod,
    /// Of the first seed, one for each learning rate.
    pub(super) trials: Vec<TrainedRun>,
    /// With the chosen learning rate, one for each seed; nothing for the frozen model.
    pub(super) chosen: Vec<TrainedRun>,
    /// One for each seed; one for the frozen model.
    pub(super) scored: Vec<ScoredRun>,
}

impl Comparison<'_> {
    /// Refuses a folder whose runs are of another comparison, before any of the long work.
    pub(super) fn check_store(&self) -> Result<(), CliError> {
        for &method in &self.config.methods {
            for &learning_rate in &self.config.learning_rates {
                if let Some(trained) = protocol::trained(method) {
                    let adapter = protocol::adapter_of(method);
                    let name = RunName::of(adapter, self.config.seeds[0], learning_rate);
                    let config = self.adapter_config(trained.head, name)?;
                    let key = self.key(&config, trained.control, Keep::Best);
                    self.store.trained(name, &key)?;
                }
            }
        }
        Ok(())
    }

    /// Trials, choice, all seeds, test; or `None` if the user asked to stop.
    pub(super) fn method(&self, method: CompareMethod) -> Result<Option<MethodRuns>, CliError> {
        let Some(trained) = protocol::trained(method) else {
            return Ok(Some(MethodRuns {
                method,
                trials: Vec::new(),
                chosen: Vec::new(),
                scored: vec![self.frozen()?],
            }));
        };
        let adapter = protocol::adapter_of(method);
        let seed = self.config.seeds[0];
        let mut trials = Vec::new();
        for &learning_rate in &self.config.learning_rates {
            let name = RunName::of(adapter, seed, learning_rate);
            let Some(run) = self.training(trained, name, Keep::Best)? else {
                return Ok(None);
            };
            trials.push(run);
        }
        let (best, kept) = best(&trials).ok_or(CliError::AllDiverged {
            method: method.name(),
            seed: seed.0,
        })?;
        let learning_rate = best.learning_rate;
        let best_name = RunName::of(adapter, seed, learning_rate);
        if !self.store.has_adapter(best_name) {
            // It was dropped when it lost to a rate that is no longer asked for.
            self.store.forget(best_name)?;
            if self.training(trained, best_name, Keep::Best)?.is_none() {
                return Ok(None);
            }
        }
        for trial in &trials {
            let name = RunName::of(adapter, seed, trial.learning_rate);
            if name != best_name {
                self.store.drop_adapter(name)?;
            }
        }
        let mut runs = MethodRuns {
            method,
            chosen: vec![best.clone()],
            scored: Vec::new(),
            trials,
        };
        for &seed in &self.config.seeds[1..] {
            let name = RunName::of(adapter, seed, learning_rate);
            let Some(run) = self.training(trained, name, Keep::Epoch(kept.epoch))? else {
                return Ok(None);
            };
            if run.kept.is_none() {
                return Err(CliError::AllDiverged {
                    method: method.name(),
                    seed: seed.0,
                });
            }
            runs.chosen.push(run);
        }
        for run in &runs.chosen {
            if self.context.interrupt.is_asked() {
                return Ok(None);
            }
            let name = RunName::of(adapter, run.seed, run.learning_rate);
            let scored = match protocol::memory(method) {
                None => self.test_score(trained, name)?,
                Some(control) => self.memory_score(trained, name, method, control)?,
            };
            runs.scored.push(scored);
        }
        self.tell(&runs, kept);
        Ok(Some(runs))
    }

    fn tell(&self, runs: &MethodRuns, kept: KeptEpoch) {
        let summary: ScoreSummary = runs.scored.iter().flat_map(|run| &run.scores).collect();
        self.context.output.note(format_args!(
            "{}: learning rate {}, epoch {}: test perplexity {:.3}",
            runs.method.name(),
            runs.chosen[0].learning_rate,
            kept.epoch,
            summary.perplexity(),
        ));
    }

    /// One training, from disk if it is there, or `None` if the user asked to stop.
    fn training(
        &self,
        trained: Trained,
        name: RunName,
        keep: Keep,
    ) -> Result<Option<TrainedRun>, CliError> {
        let config = self.adapter_config(trained.head, name)?;
        let key = self.key(&config, trained.control, keep);
        if let Some(run) = self.store.trained(name, &key)? {
            return Ok(Some(run));
        }
        memory::forget_peak();
        let start = Instant::now();
        let trainee = method::untrained(&config, self.prepared, self.context)?;
        let mut run = TrainedRun::new(key, name, trainee.num_trainable_params());
        let states = self.states.train.hidden_states(self.prepared.model());
        let setup = method::setup(&config, self.prepared, states, trained.control)?;
        let course = Course {
            comparison: self,
            config: &config,
            control: trained.control,
            keep,
            name,
        };
        let Some(best) = course.run(Trainer::new(setup, trainee), &mut run)? else {
            return Ok(None);
        };
        run.seconds = start.elapsed().as_secs_f64();
        run.peak_memory_bytes = memory::peak_bytes();
        self.store.keep_trained(name, &run, |folder| {
            if let Some(trainee) = &best.trainee {
                adapter::save(folder, &config, trainee, &self.prepared.centroids)?;
            }
            Ok(())
        })?;
        course.tell(&run);
        Ok(Some(run))
    }

    /// Scores the adapter of a finished training on the test texts, once.
    fn test_score(&self, trained: Trained, name: RunName) -> Result<ScoredRun, CliError> {
        let config = self.adapter_config(trained.head, name)?;
        let place = self.place(Some(name));
        let key = self.score_key(&config, trained.control, None);
        if let Some(run) = self.store.scored(&place, &key)? {
            return Ok(run);
        }
        let trainee = self.load_trainee(name)?;
        self.scored(place, key, Some(&trainee), &config, trained.control)
    }

    /// Scores the adapter of a finished training with a memory beside it, once.
    fn memory_score(
        &self,
        trained: Trained,
        name: RunName,
        method: CompareMethod,
        control: MemoryControl,
    ) -> Result<ScoredRun, CliError> {
        let recall = self.recall.expect("made when a method asks for it");
        let config = self.adapter_config(trained.head, name)?;
        let place = ScorePlace {
            memory: Some(method.name()),
            ..self.place(Some(name))
        };
        let key = self.score_key(&config, trained.control, Some((&recall.config, control)));
        if let Some(run) = self.store.scored(&place, &key)? {
            return Ok(run);
        }
        let start = Instant::now();
        let trainee = self.load_trainee(name)?;
        let model = self.prepared.model();
        let score = |part, states: &KnownStates| {
            method::score_tokens(
                Some(&trainee),
                &config,
                self.prepared,
                part,
                states.hidden_states(model),
                trained.control,
                self.context,
            )
        };
        let scores = Scores {
            valid: score(&self.prepared.held_out, &self.states.valid)?,
            test: score(self.test, &self.states.test)?,
        };
        let (gate, scores) = recall.mix(control, self, scores);
        let mut run = ScoredRun::new(key, scores, start.elapsed().as_secs_f64());
        run.gate = Some(gate);
        self.store.keep_scored(&place, &run)?;
        Ok(run)
    }

    fn load_trainee(&self, name: RunName) -> Result<Trainee, CliError> {
        let device = self.context.device()?.autodiff();
        let identity = &self.prepared.loaded.identity;
        let folder = self.store.adapter_folder(name);
        let adapter = Adapter::load(&folder, self.prepared.model(), identity, &device)?;
        Ok(adapter.trainee)
    }

    fn frozen(&self) -> Result<ScoredRun, CliError> {
        let name = RunName::of(
            CompareMethod::Frozen,
            self.config.seeds[0],
            self.config.learning_rates[0],
        );
        // Any description will do: nothing of it is used but sizes and clusters.
        let config = self.adapter_config(HeadMethod::Lora, name)?;
        let place = self.place(None);
        let key = self.prepared.fingerprint(b"frozen", &[self.test]);
        if let Some(run) = self.store.scored(&place, &key)? {
            return Ok(run);
        }
        self.scored(place, key, None, &config, ConditionControl::None)
    }

    fn scored(
        &self,
        place: ScorePlace,
        key: String,
        trainee: Option<&Trainee>,
        config: &AdapterConfig,
        control: ConditionControl,
    ) -> Result<ScoredRun, CliError> {
        let start = Instant::now();
        let states = match trainee {
            Some(_) => self.states.test.hidden_states(self.prepared.model()),
            None => HiddenStates::Cached(&self.states.frozen_test),
        };
        let scores = method::score_tokens(
            trainee,
            config,
            self.prepared,
            self.test,
            states,
            control,
            self.context,
        )?;
        let run = ScoredRun::new(key, scores, start.elapsed().as_secs_f64());
        self.store.keep_scored(&place, &run)?;
        Ok(run)
    }

    fn adapter_config(&self, head: HeadMethod, name: RunName) -> Result<AdapterConfig, CliError> {
        let mut training = self.config.training.clone();
        training.optimizer.learning_rate = name.learning_rate;
        method::adapter_config(head, &training, self.prepared, name.seed)
    }

    fn place(&self, run: Option<RunName>) -> ScorePlace {
        ScorePlace {
            run,
            memory: None,
            group_size: self.group_size,
        }
    }

    /// What a training depends on.
    fn key(&self, config: &AdapterConfig, control: ConditionControl, keep: Keep) -> String {
        let last_epoch = match keep {
            Keep::Best => None,
            Keep::Epoch(epoch) => Some(epoch),
        };
        let settings = (env!("CARGO_PKG_VERSION"), config, control, last_epoch);
        let settings = serde_json::to_vec(&settings).expect("settings are plain data");
        let Prepared {
            train, held_out, ..
        } = self.prepared;
        self.prepared.fingerprint(&settings, &[train, held_out])
    }

    /// What the test scores of a training depend on.
    fn score_key(
        &self,
        config: &AdapterConfig,
        control: ConditionControl,
        memory: Option<(&MemoryConfig, MemoryControl)>,
    ) -> String {
        let settings = (env!("CARGO_PKG_VERSION"), config, control, memory);
        let settings = serde_json::to_vec(&settings).expect("settings are plain data");
        let Prepared {
            train, held_out, ..
        } = self.prepared;
        self.prepared
            .fingerprint(&settings, &[train, held_out, self.test])
    }
}

/// The trial with the lowest validation loss.
fn best(trials: &[TrainedRun]) -> Option<(&TrainedRun, KeptEpoch)> {
    trials
        .iter()
        .filter_map(|trial| Some((trial, trial.kept?)))
        .min_by(|(_, left), (_, right)| left.valid_loss.total_cmp(&right.valid_loss))
}

#[cfg(test)]
mod tests {
    use chameleon_core::RunSeed;

    use super::*;

    #[test]
    fn the_lowest_validation_loss_is_chosen_and_diverged_trials_are_not() {
        let trial = |learning_rate, valid_loss: Option<f64>| {
            let name = RunName {
                method: "core",
                seed: RunSeed(1),
                learning_rate,
            };
            let mut run = TrainedRun::new(String::new(), name, 1);
            run.kept = valid_loss.map(|valid_loss| KeptEpoch {
                epoch: 1,
                valid_loss,
            });
            run
        };
        let trials = [
            trial(0.1, Some(2.0)),
            trial(0.2, Some(1.5)),
            trial(0.4, None),
        ];
        let (chosen, _) = best(&trials).unwrap();
        assert!((chosen.learning_rate - 0.2).abs() < 1e-12);
        assert!(best(&[trial(0.4, None)]).is_none());
    }
}
