//! `chameleon compare`: several methods on the same data, in one honest table.

mod report;

use std::time::Instant;

use chameleon_core::RunSeed;
use chameleon_hypernet::ConditionControl;
use chameleon_models::{ExampleScore, HiddenCache, ScoreSummary, Trainer, adapter, atomic_file};

use crate::{
    args::CompareMethod,
    commands::{
        Context,
        method::{self, HeadMethod, StepBar},
        prepare::{Prepared, Sources, prepare},
    },
    errors::{CliError, ExitStatus},
    resolve::CompareConfig,
};

use report::{CompareReport, MethodRuns, method_name};

pub(crate) fn run(config: &CompareConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let start = Instant::now();
    // What cannot work is refused before the long work starts.
    let swaps = config.methods.contains(&CompareMethod::CoreShuffled);
    if swaps && config.training.num_clusters == 1 {
        return Err(CliError::NoOtherCluster);
    }
    std::fs::create_dir_all(&config.out).map_err(|source| CliError::Folder {
        path: config.out.clone(),
        source,
    })?;
    let prepared = prepare(
        &Sources {
            model: &config.model,
            data: &config.data,
            held_out: &config.test,
            training: &config.training,
        },
        context,
    )?;
    let cache_dir = config.training.cache_dir.as_ref();
    let states = |part| prepared.hidden_states(part, "hidden states", cache_dir, context);
    let Some(test) = states(&prepared.held_out)? else {
        return Ok(ExitStatus::Interrupted);
    };
    // Layers that train change the states of every step.
    let train = if config.training.adapter.targets.is_empty() {
        let Some(train) = states(&prepared.train)? else {
            return Ok(ExitStatus::Interrupted);
        };
        Some(train)
    } else {
        None
    };
    let comparison = Comparison {
        config,
        prepared: &prepared,
        train: train.as_ref(),
        test: &test,
        context,
    };
    let mut methods = Vec::new();
    for &method in &config.methods {
        match comparison.method(method)? {
            Some(runs) => methods.push(runs),
            None => break,
        }
    }
    let is_complete = methods.len() == config.methods.len();
    if methods.is_empty() {
        return Ok(ExitStatus::Interrupted);
    }
    let seconds = start.elapsed().as_secs_f64();
    let report = CompareReport::new(&methods, config, &prepared, seconds);
    let json = serde_json::to_vec_pretty(&report).expect("a report is plain data");
    atomic_file::write(&config.out.join("compare.json"), &json)?;
    context.output.results(&report)?;
    Ok(if is_complete {
        ExitStatus::Done
    } else {
        context
            .output
            .note("stopped: the table holds the methods that were finished");
        ExitStatus::Interrupted
    })
}

struct Comparison<'a> {
    config: &'a CompareConfig,
    prepared: &'a Prepared,
    train: Option<&'a HiddenCache>,
    test: &'a HiddenCache,
    context: &'a Context,
}

impl Comparison<'_> {
    /// All seeds of one method, or `None` if the user asked to stop.
    fn method(&self, method: CompareMethod) -> Result<Option<MethodRuns>, CliError> {
        let seeds = match method {
            // Nothing is drawn, so one run is all runs.
            CompareMethod::Frozen => &self.config.seeds[..1],
            _ => &self.config.seeds,
        };
        let mut runs = MethodRuns::new(method);
        for &seed in seeds {
            let start = Instant::now();
            let Some(scores) = self.run_once(method, seed, &mut runs)? else {
                return Ok(None);
            };
            let summary: ScoreSummary = scores.iter().collect();
            self.context.output.note(format_args!(
                "{} seed {}: perplexity {:.3} in {:.0} s",
                method_name(method),
                seed.0,
                summary.perplexity(),
                start.elapsed().as_secs_f64()
            ));
            runs.seconds.push(start.elapsed().as_secs_f64());
            runs.scores.push(scores);
        }
        Ok(Some(runs))
    }

    fn run_once(
        &self,
        method: CompareMethod,
        seed: RunSeed,
        runs: &mut MethodRuns,
    ) -> Result<Option<Vec<ExampleScore>>, CliError> {
        let (head, control) = match method {
            CompareMethod::Frozen => (None, ConditionControl::None),
            CompareMethod::Lora => (Some(HeadMethod::Lora), ConditionControl::None),
            CompareMethod::LoraEqual => (Some(HeadMethod::LoraEqual), ConditionControl::None),
            CompareMethod::Experts => (Some(HeadMethod::Experts), ConditionControl::None),
            CompareMethod::Dense => (Some(HeadMethod::Dense), ConditionControl::None),
            CompareMethod::Core => (Some(HeadMethod::Core), ConditionControl::None),
            // Drawn anew for every batch: a fixed swap could be learned like the truth.
            CompareMethod::CoreShuffled => (Some(HeadMethod::Core), ConditionControl::Redrawn),
            CompareMethod::CoreConstant => (Some(HeadMethod::Core), ConditionControl::Constant),
        };
        let training = &self.config.training;
        let shape_of = head.unwrap_or(HeadMethod::Lora);
        let config = method::adapter_config(shape_of, training, self.prepared, seed)?;
        let test_states = method::states(&config, self.prepared, Some(self.test));
        let held_out = &self.prepared.held_out;
        let Some(_) = head else {
            let frozen = chameleon_models::HiddenStates::Cached(self.test);
            let scores = method::score(
                None,
                &config,
                self.prepared,
                held_out,
                frozen,
                control,
                self.context,
            )?;
            return Ok(Some(scores));
        };
        let trainee = method::untrained(&config, self.prepared, self.context)?;
        runs.num_trainable_params = trainee.num_trainable_params();
        let states = method::states(&config, self.prepared, self.train);
        let setup = method::setup(&config, self.prepared, states, control)?;
        let mut trainer = Trainer::new(setup, trainee);
        let mut bar = StepBar::new(method_name(method), &trainer, self.context);
        while let Some(report) = trainer.next_step()? {
            bar.step(&report);
            if self.context.interrupt.is_asked() {
                bar.finish();
                return Ok(None);
            }
        }
        bar.finish();
        let folder = self
            .config
            .out
            .join(format!("{}-seed-{}", method_name(method), seed.0));
        atomic_file::write_folder(&folder, |folder| {
            adapter::save(folder, &config, trainer.trainee(), &self.prepared.centroids)
        })?;
        let scores = method::score(
            Some(trainer.trainee()),
            &config,
            self.prepared,
            held_out,
            test_states,
            control,
            self.context,
        )?;
        Ok(Some(scores))
    }
}
