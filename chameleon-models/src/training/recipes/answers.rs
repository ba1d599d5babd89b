//! Answers to prompts of an experiment, compared with the references.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use chameleon_core::{LoraFactors, RunSeed};
use serde::{Deserialize, Serialize};

use crate::adapter::prompts::embed_prompts;
use crate::data::Example;
use crate::engine::generate::{GenerateOptions, generate};
use crate::engine::sampling::Sampling;
use crate::training::error::TrainingError;
use crate::training::observer::{Observer, Work};
use crate::training::text_metrics::{Stemming, bleu, meteor, rouge};

use super::reproduction::Base;

/// How near answers come to the references, each from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextScores {
    /// Answers that were scored.
    pub num_answers: usize,
    /// As sacrebleu counts it.
    pub bleu: f64,
    /// ROUGE-1.
    pub rouge1: f64,
    /// ROUGE-2.
    pub rouge2: f64,
    /// ROUGE-L.
    pub rouge_l: f64,
    /// Of its exact and stem stages.
    pub meteor: f64,
}

/// Prompts that are answered together and share their factors.
pub(super) struct PromptBatch<'a> {
    pub(super) examples: Vec<&'a Example>,
    /// What the head adds; the base model answers without.
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

/// Tokens of an answer at most; Alpaca's answers have 60 words on average.
const MAX_NEW_TOKENS: usize = 128;

/// Generates greedy answers and scores them.
pub(super) fn answer(
    batches: Vec<PromptBatch<'_>>,
    base: &Base,
    observer: &dyn Observer,
) -> Result<TextScores, TrainingError> {
    let tokenizer = &base.loaded.tokenizer;
    let options = GenerateOptions {
        max_new_tokens: MAX_NEW_TOKENS,
        sampling: Sampling::Greedy,
        stop_token_ids: tokenizer.special_token_ids().eos.clone(),
        seed: RunSeed(0),
    };
    let num_prompts = batches.iter().map(|batch| batch.examples.len()).sum();
    let mut progress = observer.begin(Work::items("answers", num_prompts));
    let mut pairs = Vec::new();
    for batch in batches {
        let prompts: Vec<&[u32]> = batch
            .examples
            .iter()
            .map(|example| example.sequence.conditioning())
            .collect();
        let on_token = |_| {
            if observer.is_interrupted() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let output = match &batch.factors {
            Some(factors) => {
                let adapted = base.model().with_merged_head(factors);
                generate(&adapted, &prompts, &options, on_token)?
            }
            None => generate(base.model(), &prompts, &options, on_token)?,
        };
        if observer.is_interrupted() {
            return Err(TrainingError::Interrupted);
        }
        for (example, generation) in batch.examples.iter().zip(output.generations) {
            let answer = tokenizer.decode(&generation.token_ids)?;
            let reference = tokenizer.decode(example.sequence.scored())?;
            pairs.push((answer.trim().to_owned(), reference.trim().to_owned()));
        }
        progress.set_position(pairs.len() as u64);
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
