//! Deviations of the published script from common practice, each with a name.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A property of the published setting that changes the meaning of its results.
///
/// Each can be switched off alone with [`Quirks::without`]; each variant documents what then holds instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Quirk {
    /// The loss `last` scores the state of the last position against the token already read there, which makes it a
    /// copy task. Off: against the state one position earlier. The loss `full` predicts the next token either way.
    UnshiftedLoss,
    /// Rows are padded to the full length with the end-of-text token, but attention and loss test for token 0:
    /// padding is attended to and scored, and a real token 0 is neither. Off: rows end where their text ends.
    ScoredPadding,
    /// Mean embeddings include the padding (and leave out token 0), so that they mostly encode the length of a row.
    /// Off: the mean of the real tokens.
    PooledPadding,
    /// Groups and conditions are made of whole rows, the scored tokens included. Off: of the first tokens of a row,
    /// and only later tokens are scored.
    Leak,
    /// Validation rows are clustered on themselves. Off: they go to the nearest centroid of the training rows.
    OwnClusters,
    /// The best epoch on the validation rows is reported, and there are no test rows. Off: the last epoch.
    BestEpoch,
    /// Only the head is adapted, because the published wrapper looks for `Linear` and GPT-2's layers are `Conv1D`.
    /// Off: plain LoRA on every linear module of the layers as well, which then run in every step.
    HeadOnly,
    /// `alpha` multiplies the factors as it is, which is our `scale`. Off: `alpha / rank`.
    DirectAlpha,
    /// Both factors of LoRA start at N(0, 0.01²) and the last layer of the hypernetwork at N(0, 0.001²), so that the
    /// first forward is not the base model's. Off: it is.
    NormalStart,
    /// The validation loss is the mean over batches of their means, however few rows a batch has. Off: every scored
    /// token weighs the same.
    EqualBatches,
    /// Batches come in the same order in every epoch. Off: in a new order.
    FixedOrder,
    /// Alpaca's validation rows are also trained on. Off: they are not.
    TrainedValidation,
    /// Answers are generated without a condition, so without the hypernetwork: metrics of text never test the
    /// method. Off: under the mean of the prompts that are answered together.
    PlainGeneration,
}

impl Quirk {
    /// Every quirk.
    pub const ALL: [Self; 13] = [
        Self::UnshiftedLoss,
        Self::ScoredPadding,
        Self::PooledPadding,
        Self::Leak,
        Self::OwnClusters,
        Self::BestEpoch,
        Self::HeadOnly,
        Self::DirectAlpha,
        Self::NormalStart,
        Self::EqualBatches,
        Self::FixedOrder,
        Self::TrainedValidation,
        Self::PlainGeneration,
    ];

    /// The quirks of a name on the command line: one, or for `padding` the two about padding.
    ///
    /// # Errors
    ///
    /// When the name is not that of a quirk.
    pub fn named(name: &str) -> Result<Vec<Self>, UnknownQuirk> {
        match name {
            "padding" => Ok(vec![Self::ScoredPadding, Self::PooledPadding]),
            _ => Ok(vec![name.parse()?]),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::UnshiftedLoss => "unshifted-loss",
            Self::ScoredPadding => "scored-padding",
            Self::PooledPadding => "pooled-padding",
            Self::Leak => "leak",
            Self::OwnClusters => "own-clusters",
            Self::BestEpoch => "best-epoch",
            Self::HeadOnly => "head-only",
            Self::DirectAlpha => "direct-alpha",
            Self::NormalStart => "normal-start",
            Self::EqualBatches => "equal-batches",
            Self::FixedOrder => "fixed-order",
            Self::TrainedValidation => "trained-validation",
            Self::PlainGeneration => "plain-generation",
        }
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Quirk {
    type Err = UnknownQuirk;

    fn from_str(name: &str) -> Result<Self, UnknownQuirk> {
        Self::ALL
            .into_iter()
            .find(|quirk| quirk.name() == name)
            .ok_or_else(|| UnknownQuirk {
                found: name.to_owned(),
            })
    }
}

/// A string that is not the name of a quirk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the published recipe has no quirk `{found}`; it has padding, {}",
    names()
)]
pub struct UnknownQuirk {
    /// The name.
    pub found: String,
}

fn names() -> String {
    Quirk::ALL.map(Quirk::name).join(", ")
}

/// Which quirks are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quirks(BTreeSet<Quirk>);

impl Quirks {
    /// All of them: the recipe `as-published`.
    pub fn published() -> Self {
        Self(Quirk::ALL.into())
    }

    /// The same with some switched off.
    #[must_use]
    pub fn without(mut self, quirks: &[Quirk]) -> Self {
        self.0.retain(|quirk| !quirks.contains(quirk));
        self
    }

    /// Whether a quirk is on.
    pub fn has(&self, quirk: Quirk) -> bool {
        self.0.contains(&quirk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip_through_text_and_json() {
        for quirk in Quirk::ALL {
            assert_eq!(quirk.to_string().parse(), Ok(quirk));
            assert_eq!(
                serde_json::to_string(&quirk).unwrap(),
                format!("\"{quirk}\"")
            );
        }
        let message = Quirk::named("leaks").unwrap_err().to_string();
        assert!(
            message.contains("`leaks`") && message.contains("leak, "),
            "{message}"
        );
    }

    #[test]
    fn one_quirk_is_switched_off_alone() {
        let quirks = Quirks::published().without(&Quirk::named("padding").unwrap());
        for quirk in Quirk::ALL {
            let is_padding = matches!(quirk, Quirk::ScoredPadding | Quirk::PooledPadding);
            assert_eq!(quirks.has(quirk), !is_padding, "{quirk}");
        }
    }
}
