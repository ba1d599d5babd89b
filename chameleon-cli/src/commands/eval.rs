//! `chameleon eval`: perplexity of a model, with or without an adapter, on a text.

use std::path::Path;
use std::time::Instant;

use burn::module::Module as _;
use chameleon_cluster::assign;
use chameleon_core::TokenStore as _;
use chameleon_hypernet::ConditionControl;
use chameleon_models::{
    Adapter, AdapterMemory, CausalLm as _, Example, GroupedExamples, HiddenStates, LoadedModel,
    MemorySource, Recipe, ScoreSummary, Scorer, TokenScores,
    adapter::group_memory::{TextsWithStates, with_memory},
    data::sliding,
    training::eval::window_nll,
    training::grouped_examples::cache_entering_states,
};
use serde::Serialize;

use crate::{
    commands::{
        Context, adapter, memory,
        prepare::{fill_cache, grouped},
        states::with_states_bar,
        texts,
    },
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::{EvalConfig, SpanConfig},
};

pub(crate) fn run(config: &EvalConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let start = Instant::now();
    let mut loaded = context.load_model_as(config.weights, &config.model)?;
    loaded.model = loaded.model.no_grad();
    let text = match &config.adapter {
        None => plain(config, &loaded, context)?,
        Some(folder) => {
            let adapter = adapter::load(folder, &loaded, config.memory)?;
            adapted(config, &loaded, &adapter, context)?
        }
    };
    let Some(scores) = text else {
        return Ok(ExitStatus::Interrupted);
    };
    context.output.results(&EvalReport {
        seconds: start.elapsed().as_secs_f64(),
        tokens_per_second: scores.num_read as f64 / scores.seconds,
        scores,
    })?;
    Ok(ExitStatus::Done)
}

/// The frozen model over one long text, in windows.
fn plain(
    config: &EvalConfig,
    loaded: &LoadedModel,
    context: &Context,
) -> Result<Option<Scores>, CliError> {
    let stored = texts::stream_joined(&config.data, "\n\n", loaded, context)?;
    let mut token_ids = stored.token_ids();
    if let Some(max_tokens) = config.max_tokens {
        token_ids = &token_ids[..max_tokens.min(token_ids.len())];
    }
    let windows = sliding(token_ids, config.windows.context, config.windows.stride)?;
    let longest = loaded.model.sizes().max_seq_len;
    if config.windows.context > longest {
        context.output.warn(format_args!(
            "the model was made for {longest} tokens, the context has {}",
            config.windows.context
        ));
    }
    let start = Instant::now();
    let bar = context.output.progress("windows", windows.len());
    let (mut nll, mut num_tokens, mut num_read) = (0.0, 0, 0);
    for window in &windows {
        if context.interrupt.is_asked() {
            return Ok(None);
        }
        nll += window_nll(&loaded.model, window);
        num_tokens += window.num_scored;
        num_read += window.token_ids.len();
        bar.inc(1);
        bar.set_message(format!(
            "perplexity {:.3},",
            (nll / num_tokens as f64).exp()
        ));
    }
    bar.finish_and_clear();
    let summary = |nll| ScoreSummary {
        nll,
        num_tokens,
        num_bytes: 0,
        num_examples: windows.len(),
    };
    Ok(Some(Scores {
        perplexity: summary(nll).perplexity(),
        loss: summary(nll).mean_nll(),
        adapted_perplexity: None,
        adapted_loss: None,
        perplexity_without_memory: None,
        num_windows: windows.len(),
        num_scored: num_tokens,
        num_read,
        seconds: start.elapsed().as_secs_f64(),
    }))
}

/// Base and adapted model over examples with a prefix that only the adapter looks at.
fn adapted(
    config: &EvalConfig,
    loaded: &LoadedModel,
    adapter: &Adapter,
    context: &Context,
) -> Result<Option<Scores>, CliError> {
    let span = SpanConfig::new(config.prefix, config.windows.context);
    let Recipe::Causal { prefix, seq_len } = adapter.config.recipe;
    if (prefix, seq_len) != (span.prefix, span.seq_len) {
        context.output.warn(format_args!(
            "the adapter was trained on {seq_len} tokens with a prefix of {prefix}, \
             it is scored on {} with a prefix of {}",
            span.seq_len, span.prefix
        ));
    }
    if config.windows.stride != config.windows.context {
        context
            .output
            .warn("with an adapter the windows never overlap; --stride is not used");
    }
    let corpus = texts::stream(&config.data, span, loaded, context)?;
    let documents = corpus.all_documents();
    let limit = config
        .max_tokens
        .map(|tokens| tokens.div_ceil(span.seq_len));
    let limit = limit.or(config.data.max_examples);
    let examples = texts::examples(&corpus, &documents, span, limit, context)?;
    let prompts: Vec<&[u32]> = examples.iter().map(Example::prompt_token_ids).collect();
    let prompt_embeddings = adapter.embed_prompts(&loaded.model, &prompts);
    let assignments = assign(&prompt_embeddings, &adapter.centroids)?.assignments;
    let lengths: Vec<usize> = examples
        .iter()
        .map(|example| example.sequence.len())
        .collect();
    let data = grouped(examples, prompt_embeddings, assignments, EVAL_BATCH)?;
    let start = Instant::now();
    let folder = tempfile::tempdir().map_err(|source| CliError::Folder {
        path: std::env::temp_dir(),
        source,
    })?;
    let cache = fill_cache(
        &loaded.model,
        &loaded.states_fingerprint(),
        &data.examples,
        &folder.path().join("states"),
        "hidden states",
        context,
    )?;
    let Some(cache) = cache else {
        return Ok(None);
    };
    let score = |trainee, states| -> Result<Vec<TokenScores>, CliError> {
        let scorer = Scorer {
            trainee,
            hidden_states: states,
            head_weight: loaded.model.head_weight(),
            centroids: adapter.centroids.clone(),
            condition: adapter.config.condition,
            control: ConditionControl::None
                .plan(adapter.config.num_clusters, adapter.config.seed)?,
        };
        Ok(scorer.score_tokens(&data, |_| {}))
    };
    let cached = HiddenStates::Cached(&cache);
    let states = match adapter.trainee.layers {
        Some(_) => HiddenStates::Layers(&loaded.model),
        None => cached,
    };
    let base = memory::summary(&score(None, cached)?);
    let scores = score(Some(&adapter.trainee), states)?;
    let mut adapted = memory::summary(&scores);
    let mut without_memory = None;
    if let Some(memory) = &adapter.memory {
        let path = folder.path().join("entering");
        let Some(scores) = remembered(loaded, memory, &data, scores, &path, context)? else {
            return Ok(None);
        };
        without_memory = Some(adapted.perplexity());
        adapted = memory::summary(&scores);
    }
    Ok(Some(Scores {
        perplexity: base.perplexity(),
        loss: base.mean_nll(),
        adapted_perplexity: Some(adapted.perplexity()),
        adapted_loss: Some(adapted.mean_nll()),
        perplexity_without_memory: without_memory,
        num_windows: data.examples.len(),
        num_scored: base.num_tokens,
        num_read: lengths.iter().sum(),
        seconds: start.elapsed().as_secs_f64(),
    }))
}

/// Scores with what the memory adds, or `None` if the user asked to stop.
fn remembered(
    loaded: &LoadedModel,
    memory: &AdapterMemory,
    data: &GroupedExamples,
    scores: Vec<TokenScores>,
    path: &Path,
    context: &Context,
) -> Result<Option<Vec<TokenScores>>, CliError> {
    let layer_idx = memory.description.config.layer_idx;
    let entering = with_states_bar("lower layers", data.examples.len(), context, |observe| {
        let fingerprint = loaded.states_fingerprint();
        let (model, examples) = (&loaded.model, &data.examples);
        cache_entering_states(model, &fingerprint, examples, layer_idx, path, observe)
    })?;
    let Some(entering) = &entering else {
        return Ok(None);
    };
    let gate = &memory.description.gate;
    let observed = memory::observe(
        &memory.memories,
        TextsWithStates { data, entering },
        &MemorySource::Group,
        &[gate.temperature],
        context,
    );
    Ok(Some(with_memory(gate, &observed, data, scores)))
}

/// Examples scored together.
const EVAL_BATCH: usize = 16;

#[derive(Debug, Serialize)]
struct EvalReport {
    #[serde(flatten)]
    scores: Scores,
    tokens_per_second: f64,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Scores {
    perplexity: f64,
    /// Nats per scored token.
    loss: f64,
    adapted_perplexity: Option<f64>,
    adapted_loss: Option<f64>,
    /// Of an adapter with a memory: what it does without.
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity_without_memory: Option<f64>,
    num_windows: usize,
    num_scored: usize,
    #[serde(skip)]
    num_read: usize,
    #[serde(skip)]
    seconds: f64,
}

impl Results for EvalReport {
    fn write_text(&self, page: &mut Page) {
        let scores = &self.scores;
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("perplexity", format!("{:.4}", scores.perplexity));
        if let Some(adapted) = scores.adapted_perplexity {
            row("perplexity adapted", format!("{adapted:.4}"));
        }
        if let Some(without) = scores.perplexity_without_memory {
            row("without its memory", format!("{without:.4}"));
        }
        row("nats per token", format!("{:.5}", scores.loss));
        row(
            "scored",
            format!(
                "{} tokens in {} windows",
                scores.num_scored, scores.num_windows
            ),
        );
        row("tokens/s", format!("{:.0}", self.tokens_per_second));
        row("seconds", format!("{:.1}", self.seconds));
        page.table(&table);
    }
}
