//! Many concurrent requests on a real model: tokens per second, latency, and whether batching changes a single bit.
//!
//! ```text
//! cargo run -p chameleon-models --example engine_load -- MODEL [STREAMS] [TOKENS] [CHECKED]
//! ```
//!
//! The adapters are untrained, because the cost of one does not depend on its parameters.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, GeneratorKind, HyperLoraHeadConfig};
use chameleon_models::adapter::{
    Adapter, AdapterConfig, FORMAT_VERSION, HeadAdaptation, PromptEncoding, Recipe, embed_prompts,
    empty_module, head_shape,
};
use chameleon_models::engine::{
    EndOfText, Engine, EngineOptions, Event, Logprobs, RandomSampling, Request, Sampling, Ticket,
};
use chameleon_models::training::TrainOptions;
use chameleon_models::{HubOptions, ModelSource, load};

/// Texts of many kinds. Each is the centre of a group, and requests begin at different places of them.
const TEXTS: [&str; 8] = [
    "The harbour was quiet that morning, and the boats lay side by side in the grey light while the gulls waited.",
    "fn total(values: &[u32]) -> u32 { let mut sum = 0; for value in values { sum += value; } sum }",
    "Sehr geehrte Damen und Herren, ich habe mein Paket noch nicht erhalten und bitte Sie um eine Auskunft.",
    "Q: A train leaves at 9:40 and arrives at 12:05. How long does the journey take? A: It takes 2 hours and",
    "{\"order\": 4711, \"items\": [{\"name\": \"lamp\", \"count\": 2}, {\"name\": \"chair\", \"count\": 4}]}",
    "The parties agree that this contract shall be governed by the laws of the state in which the seller has its seat.",
    "Water the plants twice a week, keep them out of the sun at noon, and cut back the leaves that have turned brown.",
    "In 1815 the eruption of Mount Tambora threw so much ash into the air that the next year had no summer in Europe.",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next();
    let source = ModelSource::find(&source.ok_or("name a model first")?)?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (num_streams, num_tokens, num_checked) = (number(32)?, number(64)?, number(200)?);

    let engine = start(&source, num_streams)?;
    let requests = requests(&engine, num_streams.max(num_checked), num_tokens)?;
    show_speed(&engine, &requests[..num_streams], num_tokens)?;

    let clock = Instant::now();
    let together = all(&engine, &requests[..num_checked])?;
    let batched = clock.elapsed();
    let clock = Instant::now();
    let mut num_different = 0;
    let restarted = start(&source, num_streams)?;
    for (request, together) in requests.iter().zip(&together) {
        let alone = heard(restarted.submit(request.clone())?);
        num_different += usize::from(alone != *together);
    }
    println!(
        "{num_checked} requests batched ({:.1} s) and one by one after a restart ({:.1} s): {num_different} differ",
        batched.as_secs_f64(),
        clock.elapsed().as_secs_f64()
    );
    Ok(())
}

fn start(source: &ModelSource, num_streams: usize) -> Result<Engine, Box<dyn Error>> {
    let loaded = load(source, &HubOptions::from_env(), &Device::flex())?;
    let options = EngineOptions {
        max_batch_rows: num_streams,
        ..EngineOptions::default()
    };
    let engine = Engine::start(loaded, options)?;
    for kind in [GeneratorKind::Core, GeneratorKind::DenseAsPublished] {
        let adapter = adapter(&engine, kind)?;
        engine.load_adapter(&kind.to_string(), adapter)?;
    }
    Ok(engine)
}

fn adapter(engine: &Engine, kind: GeneratorKind) -> Result<Adapter, Box<dyn Error>> {
    let loaded = engine.model();
    let shape = head_shape(&loaded.model, 4);
    let config = AdapterConfig {
        format_version: FORMAT_VERSION,
        base: loaded.identity.clone(),
        recipe: Recipe::Causal {
            prefix: 32,
            seq_len: 128,
        },
        head: HeadAdaptation::Hyper {
            config: HyperLoraHeadConfig::preset(kind, shape.in_size, shape),
        },
        layers: None,
        prompts: PromptEncoding::default(),
        condition: Condition::Centroid,
        num_clusters: TEXTS.len(),
        training: TrainOptions {
            num_epochs: 1,
            learning_rate: 1e-3,
            warmup: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        },
        seed: RunSeed(1),
        memory: None,
        exemplars: None,
    };
    let texts = loaded.tokenizer.encode_batch(&TEXTS)?;
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    Ok(Adapter {
        module: empty_module(&config, &loaded.model, &Device::flex())?,
        centroids: embed_prompts(&loaded.model, &texts),
        memory: None,
        config,
    })
}

/// Requests of all kinds: with and without an adapter, greedy and random, of many lengths.
fn requests(
    engine: &Engine,
    num: usize,
    num_tokens: usize,
) -> Result<Vec<Request>, Box<dyn Error>> {
    (0..num)
        .map(|idx| {
            let words: Vec<&str> = TEXTS[idx % TEXTS.len()]
                .split(' ')
                .cycle()
                .take(40)
                .collect();
            let words = &words[idx % 5..6 + idx * 7 % 34];
            let prompt = engine.model().tokenizer.encode(&words.join(" "))?;
            let mut request = Request::new(prompt, 1 + idx % num_tokens);
            request.adapter = match idx % 3 {
                0 => None,
                1 => Some("core".to_owned()),
                _ => Some("dense-as-published".to_owned()),
            };
            request.scale = 1.0 + (idx % 4) as f64;
            if idx % 2 == 1 {
                request.sampling = Sampling::Random(RandomSampling::new(0.8)?.with_top_p(0.9)?);
            }
            request.seed = RunSeed(idx as u64);
            request.logprobs = Logprobs::Top(idx % 3);
            Ok(request)
        })
        .collect()
}

fn show_speed(
    engine: &Engine,
    requests: &[Request],
    num_tokens: usize,
) -> Result<(), Box<dyn Error>> {
    let plain = |adapter: Option<&str>, requests: &[Request]| -> Vec<Request> {
        requests
            .iter()
            .map(|request| Request {
                adapter: adapter.map(str::to_owned),
                end_of_text: EndOfText::Ignored,
                ..Request::new(request.prompt_token_ids.clone(), num_tokens)
            })
            .collect()
    };
    println!(
        "                             tokens/s   step ms   first token p50 p99 ms   between p50 p99 ms"
    );
    for (adapter, num) in [
        (None, 1),
        (None, requests.len()),
        (Some("core"), requests.len()),
        (Some("dense-as-published"), requests.len()),
        (None, requests.len()),
        (None, 1),
    ] {
        let before = engine.stats();
        let clock = Instant::now();
        let listeners = plain(adapter, &requests[..num])
            .into_iter()
            .map(|request| {
                let ticket = engine.submit(request)?;
                Ok(thread::spawn(move || arrivals(clock, ticket)))
            })
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let arrivals: Vec<Vec<Duration>> = listeners
            .into_iter()
            .map(|listener| listener.join().map_err(|_| "a listener panicked"))
            .collect::<Result<_, _>>()?;
        let seconds = clock.elapsed().as_secs_f64();
        let after = engine.stats();
        let steps = after
            .step_time
            .saturating_sub(before.step_time)
            .as_secs_f64();
        let step = steps * 1e3 / (after.num_steps - before.num_steps).max(1) as f64;
        let mut first: Vec<Duration> = arrivals.iter().map(|times| times[0]).collect();
        let mut between: Vec<Duration> = arrivals
            .iter()
            .flat_map(|times| times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])))
            .collect();
        println!(
            "{num:3} streams, {:18} {:8.1} {step:9.1}   {:12.0} {:6.0}      {:12.0} {:6.0}",
            adapter.unwrap_or("base"),
            (num * num_tokens) as f64 / seconds,
            percentile(&mut first, 50),
            percentile(&mut first, 99),
            percentile(&mut between, 50),
            percentile(&mut between, 99),
        );
    }
    Ok(())
}

/// When each token came.
fn arrivals(clock: Instant, ticket: Ticket) -> Vec<Duration> {
    ticket
        .filter(|event| matches!(event, Event::Token(_)))
        .map(|_| clock.elapsed())
        .collect()
}

/// In milliseconds.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let position = (times.len() * percent / 100).min(times.len() - 1);
    times[position].as_secs_f64() * 1e3
}

/// The events of every request when all are submitted at once.
fn all(engine: &Engine, requests: &[Request]) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let tickets: Vec<Ticket> = requests
        .iter()
        .map(|request| engine.submit(request.clone()))
        .collect::<Result<_, _>>()?;
    Ok(tickets.into_iter().map(heard).collect())
}

/// Tokens, texts and the bits of probabilities; nothing that depends on the clock.
fn heard(ticket: Ticket) -> Vec<String> {
    ticket
        .filter_map(|event| match event {
            Event::Token(token) => Some(format!(
                "{} {:?} {:?} {:?}",
                token.token_id,
                token.text,
                token.logprob.map(f32::to_bits),
                token.top
            )),
            Event::Finished { reason, text, .. } => Some(format!("{reason:?} {text:?}")),
            Event::Failed(failure) => Some(failure.to_string()),
            _ => None,
        })
        .collect()
}
