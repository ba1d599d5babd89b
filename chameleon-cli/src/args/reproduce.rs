//! Flags of `chameleon reproduce`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use chameleon_models::training::recipes::{Quirk, UnknownQuirk};
use clap::{Args, ValueEnum};

use super::ModelArg;

/// `chameleon reproduce`
#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// Which of the paper's experiments
    #[arg(value_enum, value_name = "EXPERIMENT")]
    pub(crate) experiment: Experiment,
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Local data instead of the hub's: for wikitext a folder with a train, a valid and a test file, for alpaca a
    /// file of records with instruction, input and output
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Folder the table, the curves and every finished run are written to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the runs that are missing in --out
    #[arg(long)]
    pub(crate) resume: bool,
    /// `as-published`, `causal`, and `without-QUIRK[+QUIRK]`: as published with some of its quirks switched
    /// off [default: as-published,without-leak,without-padding,causal]
    #[arg(long, value_delimiter = ',', value_name = "RECIPE,..")]
    pub(crate) recipes: Vec<RecipeName>,
    /// Which tokens the published recipe scores [default: last]
    #[arg(long, value_enum, value_name = "LOSS")]
    pub(crate) loss: Option<LossName>,
    /// Each method is trained once per seed [default: --seed]
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) seeds: Vec<u64>,
    /// Training rows at most, and a quarter as many to validate and to test on; drawn from --seed
    #[arg(long, value_name = "N")]
    pub(crate) max_examples: Option<usize>,
    /// Passes over the data [default: 10]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Rows in a batch at most; the paper's number of groups is rows divided by this [default: the paper's]
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// Tokens kept of each row [default: the paper's]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) seq_len: Option<usize>,
    /// Tokens that condition a row of wikitext under `causal` and `without-leak` [default: 32]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) prefix: Option<usize>,
    /// What conditions a row of alpaca under `causal` and `without-leak` [default: task-input]
    #[arg(long, value_enum, value_name = "SPAN")]
    pub(crate) condition: Option<ConditionName>,
    /// Answers that each method writes and that are compared with the references [default: none]
    #[arg(long, value_name = "N")]
    pub(crate) answers: Option<usize>,
    /// Rank of the factors [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) rank: Option<usize>,
    /// The paper's alpha, which multiplies the factors directly [default: 1]
    #[arg(long, value_name = "F")]
    pub(crate) alpha: Option<f64>,
    /// Learning rate [default: the paper's]
    #[arg(long, value_name = "F")]
    pub(crate) lr: Option<f64>,
    /// Dropout of the hypernetworks [default: 0.5]
    #[arg(long, value_name = "F")]
    pub(crate) dropout: Option<f64>,
    /// Where hidden states of the frozen model are kept [default: the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// The paper's experiments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Experiment {
    /// WikiText-2 raw, line by line
    Wikitext,
    /// Alpaca-cleaned, instructions with answers
    Alpaca,
}

/// What conditions a row of Alpaca.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConditionName {
    /// The instruction
    Task,
    /// The instruction and its input
    TaskInput,
}

/// Which tokens the published recipe scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossName {
    /// The last position of each row
    Last,
    /// Every position
    Full,
}

/// A recipe by its name on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecipeName {
    /// Ours.
    Causal,
    /// The paper's, less some quirks.
    Published {
        /// As typed: quirks, or groups of them.
        without: Vec<String>,
        /// The quirks themselves.
        off: Vec<Quirk>,
    },
}

impl FromStr for RecipeName {
    type Err = UnknownRecipe;

    fn from_str(name: &str) -> Result<Self, UnknownRecipe> {
        if name == "causal" {
            return Ok(Self::Causal);
        }
        if name == "as-published" {
            return Ok(Self::Published {
                without: Vec::new(),
                off: Vec::new(),
            });
        }
        let Some(quirks) = name.strip_prefix("without-") else {
            return Err(UnknownRecipe::Name {
                found: name.to_owned(),
            });
        };
        let without: Vec<String> = quirks.split('+').map(str::to_owned).collect();
        let off = without
            .iter()
            .map(|name| Quirk::named(name))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        Ok(Self::Published { without, off })
    }
}

impl fmt::Display for RecipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Causal => f.write_str("causal"),
            Self::Published { without, .. } if without.is_empty() => f.write_str("as-published"),
            Self::Published { without, .. } => write!(f, "without-{}", without.join("+")),
        }
    }
}

/// A name that no recipe has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownRecipe {
    #[error("`{found}` is no recipe; write `as-published`, `causal` or `without-QUIRK`")]
    Name { found: String },
    #[error(transparent)]
    Quirk(#[from] UnknownQuirk),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_recipes_survive_the_round_trip() {
        for name in [
            "as-published",
            "causal",
            "without-leak",
            "without-leak+padding",
        ] {
            let recipe: RecipeName = name.parse().unwrap();
            assert_eq!(recipe.to_string(), name);
        }
        let Ok(RecipeName::Published { off, .. }) = "without-padding".parse() else {
            panic!("a published recipe");
        };
        assert_eq!(off, [Quirk::ScoredPadding, Quirk::PooledPadding]);
        for wrong in ["published", "without-", "without-leaks"] {
            assert!(wrong.parse::<RecipeName>().is_err(), "{wrong}");
        }
    }
}
