//! Answers to prompts of an experiment, compared with the references.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use chameleon_core::{LoraFactors, RunSeed};
use chameleon_models::{
    Example, GenerateOptions, Sampling, embed_prompts, generate,
    training::text_metrics::{Stemming, bleu, meteor, rouge},
};
use serde::{Deserialize, Serialize};

use crate::{commands::Context, errors::CliError};

use super::Base;

/// How near answers come to the references, each from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct TextScores {
    pub(super) num_answers: usize,
    /// As sacrebleu counts it.
    pub(super) bleu: f64,
    pub(super) rouge1: f64,
    pub(super) rouge2: f64,
    pub(super) rouge_l: f64,
    /// Of its exact and stem stages.
    pub(super) meteor: f64,
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

/// Writes the likeliest answers and scores them, or answers `None` if the user asked to stop.
pub(super) fn answer(
    batches: Vec<PromptBatch<'_>>,
    base: &Base,
    context: &Context,
) -> Result<Option<TextScores>, CliError> {
    let tokenizer = &base.loaded.tokenizer;
    let options = GenerateOptions {
        max_new_tokens: MAX_NEW_TOKENS,
        sampling: Sampling::Greedy,
        stop_token_ids: tokenizer.special_token_ids().eos.clone(),
        seed: RunSeed(0),
    };
    let num_prompts = batches.iter().map(|batch| batch.examples.len()).sum();
    let bar = context.output.progress("answers", num_prompts);
    let mut pairs = Vec::new();
    for batch in batches {
        let prompts: Vec<&[u32]> = batch
            .examples
            .iter()
            .map(|example| example.sequence.conditioning())
            .collect();
        let on_token = |_| {
            if context.interrupt.is_asked() {
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
        if context.interrupt.is_asked() {
            bar.finish_and_clear();
            return Ok(None);
        }
        for (example, generation) in batch.examples.iter().zip(output.generations) {
            let answer = tokenizer.decode(&generation.token_ids)?;
            let reference = tokenizer.decode(example.sequence.scored())?;
            pairs.push((answer.trim().to_owned(), reference.trim().to_owned()));
        }
        bar.set_position(pairs.len() as u64);
    }
    bar.finish_and_clear();
    let rouge = rouge(&pairs, Stemming::Porter);
    Ok(Some(TextScores {
        num_answers: pairs.len(),
        bleu: bleu(&pairs).score,
        rouge1: rouge.rouge1,
        rouge2: rouge.rouge2,
        rouge_l: rouge.rouge_l,
        meteor: meteor(&pairs).score,
    }))
}
