//! What is asked of an engine.

use std::sync::Arc;

use chameleon_core::RunSeed;
use chameleon_hypernet::Condition;

use crate::engine::sampling::Sampling;

/// A prompt, and how it is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is continued.
    pub prompt_token_ids: Vec<u32>,
    /// What the prompt is grouped by: its text as it is, without chat template and without a token that begins a
    /// text, because that is what adapters are trained on. The first `prefix` tokens of the adapter's recipe count.
    /// When empty, the prompt itself.
    pub grouping_token_ids: Vec<u32>,
    /// The adapter, by its name; without one the base model answers.
    pub adapter: Option<String>,
    /// What the hypernetwork sees of the group.
    pub condition: ConditionChoice,
    /// Multiplies what the adapter adds; 0 is the base model.
    pub scale: f64,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// The request's own stream of random numbers; nothing else names it.
    pub seed: RunSeed,
    /// Tokens written at most.
    pub max_new_tokens: usize,
    /// Texts that end the answer and are no part of it.
    pub stop: Vec<String>,
    /// Whether tokens that end a text end the answer.
    pub end_of_text: EndOfText,
    /// What is told about the probability of every token.
    pub logprobs: Logprobs,
}

/// What the model's own end of a text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndOfText {
    /// It ends the answer.
    #[default]
    Ends,
    /// It is a token like others, so that answers have the length that was asked for.
    Ignored,
}

/// What is told about the probability of every token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Logprobs {
    /// Nothing, which costs nothing.
    #[default]
    None,
    /// The logarithm of the probability of the chosen token, and of so many of the likeliest.
    Top(usize),
}

/// What the hypernetwork sees of a request's group.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ConditionChoice {
    /// What the adapter was trained with.
    #[default]
    AsTrained,
    /// This one. [`Condition::Batch`] and [`Condition::Blend`] see the requests of the group that start together.
    Use(Condition),
    /// One that was computed beforehand, for runs that know all their prompts.
    Given(Arc<GivenCondition>),
}

/// A condition that was computed outside of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenCondition {
    /// The group.
    pub cluster_idx: usize,
    /// How far the prompt is from its centroid.
    pub distance: f32,
    /// How the group was summed up, for the record.
    pub condition: Condition,
    /// `[hidden]`, shared by the prompts of a group.
    pub values: Arc<[f32]>,
    /// How many prompts it sums up.
    pub group_size: usize,
}

impl Request {
    /// A request to the base model: greedy, without stop texts.
    pub fn new(prompt_token_ids: Vec<u32>, max_new_tokens: usize) -> Self {
        Self {
            prompt_token_ids,
            grouping_token_ids: Vec::new(),
            adapter: None,
            condition: ConditionChoice::AsTrained,
            scale: 1.0,
            sampling: Sampling::Greedy,
            seed: RunSeed(0),
            max_new_tokens,
            stop: Vec::new(),
            end_of_text: EndOfText::Ends,
            logprobs: Logprobs::None,
        }
    }
}
