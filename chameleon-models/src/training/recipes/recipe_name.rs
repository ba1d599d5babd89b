//! Recipes by their names.

use std::fmt;
use std::str::FromStr;

use super::quirks::{Quirk, UnknownQuirk};

/// A recipe by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeName {
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

impl RecipeName {
    /// Whether conditions contain scored tokens.
    pub fn leaks(&self) -> bool {
        match self {
            Self::Causal => false,
            Self::Published { off, .. } => !off.contains(&Quirk::Leak),
        }
    }
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

/// A string that is not the name of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownRecipe {
    /// Neither a recipe nor `without-` and quirks.
    #[error("unknown recipe `{found}`; write `as-published`, `causal` or `without-QUIRK`")]
    Name {
        /// The string.
        found: String,
    },
    /// An unknown quirk.
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
