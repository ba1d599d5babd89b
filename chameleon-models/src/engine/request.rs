//! Requests to an engine.

use std::sync::Arc;

use chameleon_core::RunSeed;
use chameleon_hypernet::Condition;

use super::sampling::Sampling;

/// A prompt, and how it is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The tokens to continue.
    pub prompt_token_ids: Vec<u32>,
    /// The tokens by which the prompt is grouped: its text as it is, without chat template and without a token that
    /// begins a text, because adapters are trained on such texts. The first `prefix` tokens of the adapter's recipe
    /// count. When empty, the prompt itself.
    pub grouping_token_ids: Vec<u32>,
    /// The name of the adapter; `None` is the base model.
    pub adapter: Option<String>,
    /// The key of its group, such as a customer. With exemplars of this key, the layers are those computed from them;
    /// without, the prompt alone decides, as without a key.
    pub group: Option<String>,
    /// The condition of the hypernetwork.
    pub condition: ConditionChoice,
    /// Multiplier of the adapter's change; 0 is the base model.
    pub scale: f64,
    /// How each token is sampled.
    pub sampling: Sampling,
    /// The seed of the request's own random stream.
    pub seed: RunSeed,
    /// Largest number of new tokens.
    pub max_new_tokens: usize,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Whether tokens that end a text end the answer.
    pub end_of_text: EndOfText,
    /// Which probabilities are reported with every token.
    pub logprobs: Logprobs,
}

/// The effect of an end-of-text token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndOfText {
    /// It ends the answer.
    #[default]
    Ends,
    /// It is a token like others, so that answers have the length that was requested.
    Ignored,
}

/// Which probabilities are reported with every token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Logprobs {
    /// None.
    #[default]
    None,
    /// The logarithm of the probability of the sampled token, and of so many of the likeliest.
    Top(usize),
}

/// The condition of the hypernetwork for a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ConditionChoice {
    /// Computed as in the training of the adapter.
    #[default]
    AsTrained,
    /// Of this kind. [`Condition::Batch`] and [`Condition::Blend`] are computed from the requests of the group that
    /// start together.
    Use(Condition),
    /// One that was computed beforehand, for runs that know all their prompts.
    Given(Arc<GivenCondition>),
}

/// A condition that was computed outside of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenCondition {
    /// The group.
    pub cluster_idx: usize,
    /// The distance of the prompt from its centroid.
    pub distance: f32,
    /// The kind of the condition, for reports.
    pub condition: Condition,
    /// `[hidden]`, shared by the prompts of a group.
    pub values: Arc<[f32]>,
    /// The number of prompts in it.
    pub group_size: usize,
}

impl Request {
    /// A request to the base model: greedy, without stop texts.
    pub fn new(prompt_token_ids: Vec<u32>, max_new_tokens: usize) -> Self {
        Self {
            prompt_token_ids,
            grouping_token_ids: Vec::new(),
            adapter: None,
            group: None,
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
