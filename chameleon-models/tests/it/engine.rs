//! The engine on a tiny model: the same bits alone and in a batch, and a request that fails does not affect another.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, GeneratorKind, HyperLoraHeadConfig, LayerFactors, LoraConfig};
use chameleon_models::adapter::{
    Adapter, AdapterConfig, AttentionConfig, ExemplarUse, FORMAT_VERSION, HeadAdaptation,
    LayerAdaptation, LayerKind, LayerRange, PromptEncoding, Recipe, Representation, StepsConfig,
    empty_module, head_shape,
};
use chameleon_models::engine::{
    ConditionChoice, EndReason, Engine, EngineError, EngineOptions, Event, Logprobs,
    RandomSampling, Request, RequestFailure, Sampling, Ticket,
};
use chameleon_models::families::{PassEnd, PassInput, SequencePass};
use chameleon_models::training::TrainOptions;
use chameleon_models::{CausalLm, LoadedModel};

use crate::load::tiny_with_letters;

/// An adapter whose every number was moved, so that it changes something.
pub(crate) fn adapter(loaded: &LoadedModel, kind: &str, condition: Condition) -> Adapter {
    let device = Device::flex();
    let hidden_size = loaded.model.sizes().hidden_size;
    let rank = if kind == "core" { 2 } else { 3 };
    let shape = head_shape(&loaded.model, rank);
    let hyper = |kind| HeadAdaptation::Hyper {
        config: HyperLoraHeadConfig::preset(kind, hidden_size, shape),
    };
    let head = match kind {
        "core" | "core-layers" => hyper(GeneratorKind::Core),
        "dense" => hyper(GeneratorKind::Dense),
        "experts" => HeadAdaptation::Experts {
            config: LoraConfig::new(shape),
            num_clusters: 3,
        },
        _ => HeadAdaptation::Lora {
            config: LoraConfig::new(shape),
        },
    };
    let uses_exemplars = kind == "steps" || kind == "attention";
    let config = AdapterConfig {
        format_version: FORMAT_VERSION,
        base: loaded.identity.clone(),
        recipe: Recipe::Causal {
            prefix: 6,
            seq_len: 32,
        },
        head,
        layers: (kind.ends_with("layers") || uses_exemplars).then(|| LayerAdaptation {
            targets: vec!["q_proj".to_owned(), "down_proj".to_owned()],
            layers: LayerRange::All,
            kind: if kind == "layers" || uses_exemplars {
                LayerKind::Lora
            } else {
                LayerKind::Core
            },
            rank: 2,
            scale: 1.0,
        }),
        prompts: PromptEncoding::default(),
        condition,
        num_clusters: 3,
        training: TrainOptions {
            num_epochs: 1,
            learning_rate: 1e-3,
            warmup: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        },
        seed: RunSeed(1),
        memory: None,
        exemplars: match kind {
            "steps" => Some(ExemplarUse::Steps(StepsConfig {
                num_steps: 2,
                ..StepsConfig::default()
            })),
            "attention" => Some(ExemplarUse::Attention(AttentionConfig { num_exemplars: 2 })),
            _ => None,
        },
    };
    let module = empty_module(&config, &loaded.model, &device.clone().autodiff()).unwrap();
    let steps = module.steps.clone();
    let mut module = module.map(&mut Moved { num_seen: 0 });
    // A size moved by as much as a factor would be astronomic.
    module.steps = steps;
    let module = module.valid();
    let centroids = loaded.model.embed(ids(&[0, 7, 14])).squeeze_dim::<2>(0);
    Adapter {
        config,
        module,
        centroids,
        memory: None,
    }
}

/// Adds a different number to everything that trains, always the same.
struct Moved {
    num_seen: usize,
}

impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|tensor| {
            let shape = tensor.shape();
            let values: Vec<f32> = (0..shape.num_elements())
                .map(|idx| ((idx + 17 * self.num_seen) as f32 * 1.37).sin() * 0.4)
                .collect();
            self.num_seen += 1;
            let device = tensor.device();
            let noise = Tensor::<D>::from_data(TensorData::new(values, shape), &device);
            Tensor::from_data((tensor.detach() + noise).into_data(), &device).require_grad()
        })
    }
}

pub(crate) fn ids(token_ids: &[i64]) -> Tensor<2, Int> {
    let data = TensorData::new(token_ids.to_vec(), [1, token_ids.len()]);
    Tensor::from_data(data, &Device::flex())
}

const KINDS: [&str; 6] = ["core", "dense", "experts", "lora", "layers", "core-layers"];

fn engine(options: EngineOptions) -> Engine {
    let engine = Engine::start(tiny_with_letters(), options).unwrap();
    for kind in KINDS {
        let adapter = adapter(engine.model(), kind, Condition::Centroid);
        engine.load_adapter(kind, adapter).unwrap();
    }
    engine
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        prefill_chunk: 8,
        ..EngineOptions::default()
    }
}

/// Requests of all kinds: base and every adapter, greedy and random, short and long.
fn requests(num: usize) -> Vec<Request> {
    (0..num)
        .map(|idx| {
            let len = 1 + idx * 7 % 40;
            let prompt = (0..len)
                .map(|position| {
                    u32::try_from((idx * 5 + position * position * 3 + 3) % 24).unwrap()
                })
                .collect();
            let mut request = Request::new(prompt, 1 + idx * 3 % 17);
            request.adapter = KINDS.get(idx % 7).map(|&kind| kind.to_owned());
            request.scale = [1.0, 0.5, -2.0][idx % 3];
            if idx % 2 == 1 {
                let sampling = RandomSampling::new(1.3).unwrap();
                request.sampling = Sampling::Random(sampling.with_top_k(9).unwrap());
            }
            request.seed = RunSeed(idx as u64 / 3);
            request.logprobs = Logprobs::Top(idx % 4);
            if idx % 5 == 0 {
                request.stop = vec!["ab".to_owned(), "f".to_owned()];
            }
            request
        })
        .collect()
}

/// The events of a request, without what depends on the clock; logarithms bit by bit.
pub(crate) fn heard(ticket: Ticket) -> Vec<String> {
    ticket
        .map(|event| match event {
            Event::Started(started) => format!("{:?}", started.group),
            Event::Token(token) => {
                let bits = |logprob: f32| logprob.to_bits();
                let top: Vec<_> = token
                    .top
                    .iter()
                    .map(|choice| (choice.token_id, bits(choice.logprob)))
                    .collect();
                format!(
                    "{} {:?} {:?} {top:?}",
                    token.token_id,
                    token.text,
                    token.logprob.map(bits)
                )
            }
            Event::Finished {
                reason,
                text,
                usage,
            } => format!(
                "{reason:?} {text:?} {} {}",
                usage.num_prompt_tokens, usage.num_new_tokens
            ),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn answers_are_the_same_to_the_last_bit_alone_in_a_crowd_and_after_a_restart() {
    let requests = requests(60);
    let together = engine(options());
    let tickets: Vec<Ticket> = requests
        .iter()
        .map(|request| together.submit(request.clone()).unwrap())
        .collect();
    let together: Vec<_> = tickets.into_iter().map(heard).collect();

    let one_by_one = engine(options());
    let few = engine(EngineOptions {
        max_batch_rows: 5,
        ..options()
    });
    let backwards: Vec<Ticket> = requests
        .iter()
        .rev()
        .map(|request| few.submit(request.clone()).unwrap())
        .collect();
    let mut few: Vec<_> = backwards.into_iter().map(heard).collect();
    few.reverse();
    for ((request, together), few) in requests.into_iter().zip(together).zip(few) {
        let alone = heard(one_by_one.submit(request).unwrap());
        assert_eq!(alone, together);
        assert_eq!(alone, few);
    }
}

#[test]
fn greedy_answers_of_the_base_model_are_those_of_full_passes() {
    let engine = engine(options());
    let loaded = engine.model();
    for request in requests(12) {
        let mut token_ids: Vec<i64> = request
            .prompt_token_ids
            .iter()
            .copied()
            .map(i64::from)
            .collect();
        let mut expected = Vec::new();
        while expected.len() < request.max_new_tokens {
            let hidden = loaded.model.hidden_states(ids(&token_ids));
            let last = hidden.narrow(1, token_ids.len() - 1, 1).squeeze_dim::<2>(1);
            let next = last.matmul(loaded.model.head_weight().to_dense()).argmax(1);
            let next = next.into_scalar::<i64>();
            let token_id = u32::try_from(next).unwrap();
            if loaded.tokenizer.is_eos(token_id) {
                break;
            }
            token_ids.push(next);
            expected.push(token_id);
        }
        let request = Request::new(request.prompt_token_ids, request.max_new_tokens);
        let answer = engine.submit(request).unwrap().wait().unwrap();
        assert_eq!(answer.token_ids, expected);
    }
}

#[test]
fn probabilities_are_those_of_the_merged_head() {
    let engine = engine(options());
    let loaded = engine.model();
    let prompt = [3_u32, 9, 1, 20, 4, 4, 8];
    for kind in KINDS {
        for scale in [1.0, 0.0, 1.5] {
            let mut request = Request::new(prompt.to_vec(), 1);
            request.adapter = Some(kind.to_owned());
            request.scale = scale;
            request.logprobs = Logprobs::Top(24);
            let mut cluster_idx = 0;
            let mut found = [0.0; 24];
            for event in engine.submit(request).unwrap() {
                match event {
                    Event::Started(started) => cluster_idx = started.group.unwrap().cluster_idx,
                    Event::Token(token) => {
                        for choice in token.top {
                            found[choice.token_id as usize] = choice.logprob;
                        }
                    }
                    _ => {}
                }
            }
            let adapter = adapter(loaded, kind, Condition::Centroid);
            let condition = adapter.centroids.clone().narrow(0, cluster_idx, 1);
            let producer = adapter.module.factor_producer();
            let group = producer.groups(cluster_idx, condition).remove(0);
            let weight = loaded.model.head_weight().to_dense() + group.head.delta() * scale;
            let layers = group.layers.map(|layers| layers.with_strength(scale));
            let hidden = loaded.model.forward(SequencePass {
                input: PassInput::TokenIds(ids(&prompt.map(i64::from))),
                end: PassEnd::Head,
                factors: &layers.map_or_else(LayerFactors::none, |layers| layers.for_batch()),
            });
            let last = hidden.narrow(1, 6, 1).squeeze_dim::<2>(1);
            let expected = log_softmax(last.matmul(weight), 1).into_data();
            for (found, expected) in found.iter().zip(expected.iter::<f32>()) {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{kind} {scale}: {found} {expected}"
                );
            }
        }
    }
}

#[test]
fn a_stop_text_is_never_shown_and_the_pieces_are_the_text() {
    let engine = engine(options());
    let text = |request: Request| {
        let mut text = String::new();
        let mut end = None;
        for event in engine.submit(request).unwrap() {
            match event {
                Event::Token(token) => text.push_str(&token.text),
                Event::Finished {
                    reason, text: rest, ..
                } => {
                    text.push_str(&rest);
                    end = Some(reason);
                }
                _ => {}
            }
        }
        (text, end.unwrap())
    };
    let mut request = Request::new(vec![5, 6], 20);
    request.sampling = Sampling::Random(RandomSampling::new(3.0).unwrap());
    request.seed = RunSeed(4);
    let (whole, _) = text(request.clone());
    assert!(whole.len() > 6, "{whole}");
    request.stop = vec!["zz".to_owned(), whole[3..6].to_owned()];
    let (cut, reason) = text(request);
    assert_eq!(cut, whole[..whole.find(&whole[3..6]).unwrap()]);
    assert_eq!(reason, EndReason::StopText);
}

#[test]
fn a_dropped_ticket_frees_its_place() {
    let engine = engine(EngineOptions {
        max_batch_rows: 1,
        ..options()
    });
    let mut long = Request::new(vec![1], 60);
    long.end_of_text = chameleon_models::engine::EndOfText::Ignored;
    let running = engine.submit(long.clone()).unwrap();
    assert!(matches!(running.recv(), Some(Event::Started(_))));
    let waiting = engine.submit(long.clone()).unwrap();
    let last = engine.submit(Request::new(vec![1], 2)).unwrap();
    drop(waiting);
    drop(running);
    assert!(heard(last).len() >= 2);
    assert!(engine.wait_idle(Duration::from_secs(10)));
    let stats = engine.stats();
    assert_eq!(
        (
            stats.num_running,
            stats.num_queued,
            stats.num_reserved_tokens
        ),
        (0, 0, 0)
    );
    assert_eq!(stats.num_cached_tokens, 0);
    assert_eq!(stats.num_finished + stats.num_cancelled, 3);
    // The one that ran may have been over before it was dropped; the other never ran.
    assert!(stats.num_cancelled >= 1);
}

#[test]
fn requests_cancelled_from_other_threads_all_leave() {
    let engine = engine(EngineOptions {
        max_batch_rows: 1,
        ..options()
    });
    let mut long = Request::new(vec![1], 60);
    long.end_of_text = chameleon_models::engine::EndOfText::Ignored;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let tickets: Vec<_> = (0..4).map(|_| engine.submit(long.clone())).collect();
                    drop(tickets);
                }
            });
        }
    });
    assert!(engine.wait_idle(Duration::from_secs(10)));
    let stats = engine.stats();
    assert_eq!(
        (
            stats.num_queued,
            stats.num_queued_tokens,
            stats.num_reserved_tokens
        ),
        (0, 0, 0)
    );
    assert_eq!(
        stats.num_finished + stats.num_cancelled,
        stats.num_submitted
    );
}

#[test]
fn what_cannot_be_answered_is_refused_at_once() {
    let engine = engine(EngineOptions {
        max_batch_rows: 1,
        max_cached_tokens: 60,
        max_queued_requests: 2,
        ..options()
    });
    let refusal = |change: &dyn Fn(&mut Request)| {
        let mut request = Request::new(vec![1, 2], 4);
        change(&mut request);
        engine.submit(request).unwrap_err().to_string()
    };
    let too_long = refusal(&|request| request.prompt_token_ids = vec![1; 65]);
    assert_eq!(too_long, "the prompt has 65 tokens, the model takes 64");
    let too_many = refusal(&|request| request.max_new_tokens = 1000);
    assert_eq!(
        too_many,
        "prompt and answer have up to 64 tokens, this engine keeps 60"
    );
    assert_eq!(
        refusal(&|request| request.prompt_token_ids.clear()),
        "the prompt is empty"
    );
    let unknown = refusal(&|request| request.prompt_token_ids.push(24));
    assert_eq!(unknown, "the prompt holds token id 24, the model knows 24");
    let unknown = refusal(&|request| request.adapter = Some("none".to_owned()));
    assert_eq!(
        unknown,
        "there is no adapter `none`; loaded are: core, core-layers, dense, experts, layers, lora"
    );
    let scale = refusal(&|request| request.scale = f64::NAN);
    assert_eq!(
        scale,
        "scale is NaN, expected a number between -1000 and 1000"
    );
    assert_eq!(
        refusal(&|request| request.stop = vec![String::new()]),
        "a stop text is empty"
    );

    let mut long = Request::new(vec![1], 50);
    long.end_of_text = chameleon_models::engine::EndOfText::Ignored;
    let tickets: Vec<_> = (0..64).map(|_| engine.submit(long.clone())).collect();
    let full = tickets
        .iter()
        .find_map(|ticket| ticket.as_ref().err())
        .unwrap();
    assert!(
        matches!(
            full,
            EngineError::QueueFull {
                num_requests: 2,
                ..
            }
        ),
        "{full}"
    );

    engine.drain();
    let refused = engine.submit(Request::new(vec![1], 1)).unwrap_err();
    assert!(matches!(refused, EngineError::Draining));
    for ticket in tickets.into_iter().flatten() {
        assert!(matches!(ticket.last(), Some(Event::Finished { .. })));
    }
    assert!(engine.wait_idle(Duration::from_secs(10)));
}

#[test]
fn adapters_come_and_go_while_requests_run() {
    let engine = engine(options());
    let loaded = engine.model();
    let another = || adapter(loaded, "core", Condition::Centroid);
    let load = |name: &str, adapter: Adapter| engine.load_adapter(name, adapter);
    assert!(matches!(
        load("core", another()),
        Err(EngineError::NameTaken { .. })
    ));
    for name in ["", "../x", "a b"] {
        assert!(matches!(
            load(name, another()),
            Err(EngineError::AdapterName { .. })
        ));
    }
    let mut foreign = another();
    foreign.config.base.fingerprint = "0123456789abcdef".to_owned();
    let refusal = load("foreign", foreign).unwrap_err().to_string();
    assert!(refusal.contains("0123456789abcdef"), "{refusal}");
    assert!(refusal.contains(&loaded.identity.fingerprint), "{refusal}");

    let mut request = Request::new(vec![1, 2, 3], 40);
    request.adapter = Some("core".to_owned());
    let ticket = engine.submit(request.clone()).unwrap();
    let request_id = ticket.request_id();
    engine.unload_adapter("core").unwrap();
    assert!(matches!(ticket.last(), Some(Event::Finished { .. })));
    assert!(matches!(
        engine.submit(request.clone()),
        Err(EngineError::UnknownAdapter { .. })
    ));
    assert!(matches!(
        engine.unload_adapter("core"),
        Err(EngineError::UnknownAdapter { .. })
    ));

    load("core", another()).unwrap();
    assert_eq!(engine.adapters().len(), KINDS.len());
    let ticket = engine.submit(request).unwrap();
    let second_id = ticket.request_id();
    assert_ne!(request_id, second_id);
    assert!(matches!(ticket.last(), Some(Event::Finished { .. })));
    assert!(engine.wait_idle(Duration::from_secs(10)));
    let clusters = engine.clusters("core").unwrap();
    let used: Vec<_> = clusters
        .iter()
        .filter(|cluster| cluster.num_requests > 0)
        .collect();
    assert_eq!(used.len(), 1);
    assert_eq!(used[0].recent_request_ids, [second_id]);
    assert_eq!(used[0].num_running, 0);
    assert!(used[0].delta_norm.unwrap() > 0.0);
}

#[test]
fn factors_are_generated_once_for_each_group() {
    let engine = engine(options());
    for _ in 0..3 {
        for kind in ["core", "dense"] {
            let mut request = Request::new(vec![1, 2, 3], 2);
            request.adapter = Some(kind.to_owned());
            heard(engine.submit(request).unwrap());
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.num_factor_misses, stats.num_factor_hits), (2, 4));
}

#[test]
fn the_batch_condition_sums_up_the_requests_that_start_together() {
    let engine = Engine::start(tiny_with_letters(), options()).unwrap();
    let adapter = adapter(engine.model(), "core", Condition::Batch);
    engine.load_adapter("core", adapter).unwrap();
    // All are queued before the worker may look: its callback holds it up.
    let (go, wait) = mpsc::channel::<()>();
    let held_up = engine
        .submit_with(Request::new(vec![1], 1), move |_| {
            let _ = wait.recv();
        })
        .unwrap();
    let tickets: Vec<Ticket> = (0..4)
        .map(|_| {
            let mut request = Request::new(vec![1, 2, 3], 2);
            request.adapter = Some("core".to_owned());
            engine.submit(request).unwrap()
        })
        .collect();
    drop(go);
    for ticket in tickets {
        let Some(Event::Started(started)) = ticket.recv() else {
            panic!("a request starts first");
        };
        let group = started.group.unwrap();
        assert_eq!(group.condition, Condition::Batch);
        assert_eq!(group.group_size, 4);
    }
    drop(held_up);

    // Known beforehand, prompts are summed up however they are answered.
    let prompts: [&[u32]; 3] = [&[1, 2, 3], &[1, 2, 4], &[1, 2, 3, 9, 9, 9, 20, 21]];
    let conditions = engine.conditions_of_all("core", &prompts).unwrap();
    let sizes: usize = conditions
        .iter()
        .map(|given| given.group_size)
        .max()
        .unwrap();
    assert!(sizes > 1, "the first two fall in one group");
    for (given, prompt) in conditions.into_iter().zip(prompts) {
        let (cluster_idx, group_size) = (given.cluster_idx, given.group_size);
        let mut request = Request::new(prompt.to_vec(), 2);
        request.adapter = Some("core".to_owned());
        request.condition = ConditionChoice::Given(given);
        let Some(Event::Started(started)) = engine.submit(request).unwrap().recv() else {
            panic!("a request starts first");
        };
        let group = started.group.unwrap();
        assert_eq!(
            (group.cluster_idx, group.group_size),
            (cluster_idx, group_size)
        );
    }
}

#[test]
fn a_callback_that_panics_is_its_own_trouble() {
    let engine = engine(options());
    let bad = engine.submit_with(Request::new(vec![1], 9), |_| panic!("on purpose"));
    let good = engine.submit(Request::new(vec![1], 9)).unwrap();
    assert!(matches!(good.last(), Some(Event::Finished { .. })));
    drop(bad);
    assert!(engine.wait_idle(Duration::from_secs(10)));
}

#[test]
fn a_grouping_that_fails_or_panics_fails_its_request() {
    let engine = engine(options());
    let loaded = engine.model();
    let broken = || adapter(loaded, "core", Condition::Centroid);
    let mut fails = broken();
    // Our own bugs, which the checks of a folder would refuse: narrow centroids, and layers that are not there.
    fails.centroids = fails.centroids.narrow(1, 0, 5);
    let mut panics = broken();
    panics.config.prompts.representation = Representation::Hidden { num_layers: 99 };
    for (name, adapter, words) in [
        ("fails", fails, "16"),
        ("panics", panics, "99 layers of a model with 2"),
    ] {
        engine.load_adapter(name, adapter).unwrap();
        let mut request = Request::new(vec![1], 9);
        request.adapter = Some(name.to_owned());
        let events: Vec<Event> = engine.submit(request).unwrap().collect();
        let [Event::Failed(RequestFailure::Grouping { message })] = events.as_slice() else {
            panic!("{name}: {events:?}");
        };
        assert!(message.contains(words), "{name}: {message}");
    }
    assert!(engine.wait_idle(Duration::from_secs(10)));
    assert_eq!(engine.stats().num_failed, 2);
}

#[test]
fn centroids_that_are_not_finite_are_refused() {
    let engine = engine(options());
    let mut broken = adapter(engine.model(), "core", Condition::Centroid);
    broken.centroids = broken.centroids * f32::NAN;
    assert!(matches!(
        engine.load_adapter("broken", broken),
        Err(EngineError::Centroids { .. })
    ));
    assert!(engine.unload_adapter("broken").is_err());
}

#[test]
fn prompts_fall_in_the_group_of_the_nearest_centroid() {
    let engine = engine(options());
    let centroids = adapter(engine.model(), "core", Condition::Centroid).centroids;
    for token_ids in [&[0_u32][..], &[7, 7], &[14, 3, 5], &[21, 9, 2, 2]] {
        let found = engine.embed(token_ids, Some("core")).unwrap();
        let embedding = TensorData::new(found.embedding, [1, centroids.dims()[1]]);
        let embedding = Tensor::<2>::from_data(embedding, &Device::flex());
        let expected = chameleon_cluster::assign(&embedding, &centroids).unwrap();
        let nearest = found.nearest.unwrap();
        assert_eq!(nearest.cluster_idx, expected.assignments[0]);
        assert_eq!(nearest.distance.to_bits(), expected.distances[0].to_bits());
    }
}

#[test]
fn a_step_that_panics_loses_its_requests_and_not_the_engine() {
    let engine = engine(options());
    let mut broken = adapter(engine.model(), "lora", Condition::Centroid);
    // Its factors are for another model: our own bug, which the checks of a folder would refuse.
    let mut shape = head_shape(&engine.model().model, 2);
    shape.in_size = 5;
    let head = HeadAdaptation::Lora {
        config: LoraConfig::new(shape),
    };
    broken.module.head = head.init(RunSeed(1), &Device::flex());
    engine.load_adapter("broken", broken).unwrap();
    let mut request = Request::new(vec![1, 2], 5);
    request.adapter = Some("broken".to_owned());
    let last = engine.submit(request).unwrap().last();
    assert!(
        matches!(last, Some(Event::Failed(RequestFailure::Step { .. }))),
        "{last:?}"
    );
    let next = engine.submit(Request::new(vec![1, 2], 5)).unwrap();
    assert!(matches!(next.last(), Some(Event::Finished { .. })));
}

#[test]
fn an_engine_that_is_dropped_says_so() {
    let engine = engine(options());
    let (go, wait) = mpsc::channel::<()>();
    let held_up = engine.submit_with(Request::new(vec![1], 50), move |_| {
        let _ = wait.recv();
    });
    let waiting = engine.submit(Request::new(vec![1], 50)).unwrap();
    let dropping = std::thread::spawn(move || drop(engine));
    drop(go);
    dropping.join().unwrap();
    let last = waiting.last();
    assert!(
        matches!(
            last,
            Some(Event::Failed(RequestFailure::Stopped) | Event::Finished { .. })
        ),
        "{last:?}"
    );
    drop(held_up);
}

#[test]
fn embeddings_are_those_of_training() {
    let engine = engine(options());
    let loaded = engine.model();
    let tokens = [3, 4, 5, 6, 7, 8, 9, 10];
    let found = engine.embed(&tokens, Some("core")).unwrap();
    // The recipe looks at six tokens.
    let rows: [&[u32]; 1] = [&tokens[..6]];
    let expected = chameleon_models::adapter::embed_prompts(&loaded.model, &rows).into_data();
    assert_eq!(found.embedding, expected.try_into_vec::<f32>().unwrap());
    assert!(found.nearest.is_some());
    assert!(engine.embed(&tokens, None).unwrap().nearest.is_none());
    assert!(engine.embed(&[], None).is_err());
}

#[test]
fn handles_are_shared_between_threads() {
    let engine = Arc::new(engine(options()));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || heard(engine.submit(Request::new(vec![1], 5)).unwrap()))
        })
        .collect();
    let heard: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(heard.windows(2).all(|pair| pair[0] == pair[1]));
}
