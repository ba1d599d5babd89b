//! `chameleon eval`: perplexity of a model, with or without an adapter, on a text.

use std::time::Instant;

use burn::module::Module as _;
use chameleon_models::adapter::{Adapter, Recipe};
use chameleon_models::data::sliding;
use chameleon_models::training::{
    SpanConfig, TextSource, TrainingError, score_adapter, score_windows,
};
use chameleon_models::{CausalLm as _, LoadedModel};
use serde::Serialize;

use crate::{
    commands::{Context, adapter, observe::unless_interrupted},
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::EvalConfig,
};

pub(crate) fn run(config: &EvalConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let start = Instant::now();
    let mut loaded = context.load_model(&config.model)?;
    loaded.model = loaded.model.no_grad();
    loaded.model.check_positions(config.windows.context)?;
    let scores = match &config.adapter {
        None => plain(config, &loaded, context),
        Some(folder) => {
            let adapter = adapter::load(folder, &loaded, config.memory)?;
            adapted(config, &loaded, &adapter, context)
        }
    };
    let Some(scores) = unless_interrupted(scores)? else {
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
) -> Result<Scores, TrainingError> {
    let stored = config.data.joined("\n\n", loaded, context)?;
    let mut token_ids = stored.token_ids();
    if let Some(max_tokens) = config.max_tokens {
        token_ids = &token_ids[..max_tokens.min(token_ids.len())];
    }
    let windows = sliding(token_ids, config.windows.context, config.windows.stride)?;
    let longest = loaded.model.sizes().max_seq_len;
    if config.windows.context > longest {
        context.output.warn(format_args!(
            "the model was trained on {longest} tokens, the context has {}",
            config.windows.context
        ));
    }
    let start = Instant::now();
    let summary = score_windows(&loaded.model, &windows, context)?;
    Ok(Scores {
        perplexity: summary.perplexity(),
        loss: summary.mean_nll(),
        adapted_perplexity: None,
        adapted_loss: None,
        perplexity_without_memory: None,
        num_windows: windows.len(),
        num_scored: summary.num_tokens,
        num_read: windows.iter().map(|window| window.token_ids.len()).sum(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Base and adapted model over examples with a prefix, which is the condition of the adapter.
fn adapted(
    config: &EvalConfig,
    loaded: &LoadedModel,
    adapter: &Adapter,
    context: &Context,
) -> Result<Scores, TrainingError> {
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
    let limit = config
        .max_tokens
        .map(|tokens| tokens.div_ceil(span.seq_len));
    let source = TextSource {
        max_examples: limit.or(config.data.max_examples),
        ..config.data.clone()
    };
    let examples = source
        .all_examples(span, loaded, context.settings.seed, context)?
        .examples;
    let num_windows = examples.len();
    let num_read = examples.iter().map(|example| example.sequence.len()).sum();
    let start = Instant::now();
    let temporary = std::env::temp_dir();
    let folder =
        tempfile::tempdir().map_err(TrainingError::file("make a folder in", &temporary))?;
    let scores = score_adapter(loaded, adapter, examples, folder.path(), context)?;
    Ok(Scores {
        perplexity: scores.base.perplexity(),
        loss: scores.base.mean_nll(),
        adapted_perplexity: Some(scores.adapted.perplexity()),
        adapted_loss: Some(scores.adapted.mean_nll()),
        perplexity_without_memory: scores.without_memory.map(|summary| summary.perplexity()),
        num_windows,
        num_scored: scores.base.num_tokens,
        num_read,
        seconds: start.elapsed().as_secs_f64(),
    })
}

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
    /// The result of an adapter with a memory, without the memory.
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
