//! Generated answers to prompts of an experiment, scored against the references.

use burn::tensor::Tensor;
use chameleon_core::LoraFactors;
use serde::{Deserialize, Serialize};

use crate::adapter::prompts::embed_prompts;
use crate::data::Example;
use crate::engine::{Engine, EngineOptions, Event, Request, RequestFailure, Ticket};
use crate::training::error::TrainingError;
use crate::training::observer::{Observer, Work};
use crate::training::text_metrics::{Stemming, bleu, meteor, rouge};

use super::base::Base;

/// Scores of answers against the references, each from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextScores {
    /// Answers that were scored.
    pub num_answers: usize,
    /// BLEU, as sacrebleu computes it.
    pub bleu: f64,
    /// ROUGE-1.
    pub rouge1: f64,
    /// ROUGE-2.
    pub rouge2: f64,
    /// ROUGE-L.
    pub rouge_l: f64,
    /// METEOR with its exact and stem stages.
    pub meteor: f64,
}

/// Prompts that are answered together and share their factors.
pub(super) struct PromptBatch<'a> {
    pub(super) examples: Vec<&'a Example>,
    /// The factors of the head; `None` for the base model.
    pub(super) factors: Option<LoraFactors>,
}

impl PromptBatch<'_> {
    /// The mean embedding of the prompts, `[1, hidden]`: the condition of a batch as published.
    pub(super) fn mean_embedding(examples: &[&Example], base: &Base) -> Tensor<2> {
        let prompts: Vec<&[u32]> = examples
            .iter()
            .map(|example| example.prompt_token_ids())
            .collect();
        embed_prompts(base.model(), &prompts).mean_dim(0)
    }
}

/// Largest number of tokens of an answer; Alpaca's answers have 60 words on average.
const MAX_NEW_TOKENS: usize = 128;

/// Prompt tokens of a pass.
const PREFILL_CHUNK: usize = 512;

/// Decodes answers greedily and scores them.
pub(super) fn answer(
    batches: Vec<PromptBatch<'_>>,
    base: &Base,
    observer: &dyn Observer,
) -> Result<TextScores, TrainingError> {
    let tokenizer = &base.loaded.tokenizer;
    let num_prompts = batches.iter().map(|batch| batch.examples.len()).sum();
    let mut progress = observer.begin(Work::items("answers", num_prompts));
    let mut pairs = Vec::new();
    for batch in batches {
        let engine = engine(&batch, base)?;
        let tickets = batch
            .examples
            .iter()
            .map(|example| {
                let prompt = example.sequence.conditioning().to_vec();
                engine.submit(Request::new(prompt, MAX_NEW_TOKENS))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (example, ticket) in batch.examples.iter().zip(tickets) {
            let token_ids = follow(&ticket, observer)?;
            let answer = tokenizer.decode(&token_ids)?;
            let reference = tokenizer.decode(example.sequence.scored())?;
            pairs.push((answer.trim().to_owned(), reference.trim().to_owned()));
            progress.set_position(pairs.len() as u64);
        }
    }
    let rouge = rouge(&pairs, Stemming::Porter);
    Ok(TextScores {
        num_answers: pairs.len(),
        bleu: bleu(&pairs).score,
        rouge1: rouge.rouge1,
        rouge2: rouge.rouge2,
        rouge_l: rouge.rouge_l,
        meteor: meteor(&pairs).score,
    })
}

/// An engine whose model has the factors of a batch merged.
fn engine(batch: &PromptBatch<'_>, base: &Base) -> Result<Engine, TrainingError> {
    let mut loaded = base.loaded.clone();
    if let Some(factors) = &batch.factors {
        loaded.model = base.model().with_merged_head(factors);
    }
    let options = EngineOptions {
        max_batch_rows: batch.examples.len().max(1),
        max_cached_tokens: usize::MAX,
        prefill_chunk: PREFILL_CHUNK,
        max_queued_requests: usize::MAX,
        max_queued_tokens: usize::MAX,
        ..EngineOptions::default()
    };
    Ok(Engine::start(loaded, options)?)
}

/// The tokens of an answer.
fn follow(ticket: &Ticket, observer: &dyn Observer) -> Result<Vec<u32>, TrainingError> {
    let mut token_ids = Vec::new();
    while let Some(event) = ticket.recv() {
        if observer.is_interrupted() {
            return Err(TrainingError::Interrupted);
        }
        match event {
            Event::Token(token) => token_ids.push(token.token_id),
            Event::Finished { .. } => return Ok(token_ids),
            Event::Failed(failure) => return Err(failure.into()),
            _ => {}
        }
    }
    Err(RequestFailure::Stopped.into())
}
