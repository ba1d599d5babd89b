//! Checks of single values, and why a command line was refused.

#[cfg(feature = "serve")]
use std::net::SocketAddr;

/// What a number has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Above 0 and below 1.
    Fraction,
    /// 0 or more and below 1.
    FractionOrZero,
    /// Above 0, 1 at most.
    Probability,
    /// Above 0.
    Positive,
    /// 0 or more.
    NotNegative,
    /// Above 0; 0 has a flag of its own.
    Temperature,
    /// Anything but infinity and not-a-number.
    Finite,
}

impl Expected {
    fn accepts(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Fraction => value > 0.0 && value < 1.0,
                Self::FractionOrZero => (0.0..1.0).contains(&value),
                Self::Probability => value > 0.0 && value <= 1.0,
                Self::Positive | Self::Temperature => value > 0.0,
                Self::NotNegative => value >= 0.0,
                Self::Finite => true,
            }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Fraction => "above 0 and below 1",
            Self::FractionOrZero => "at least 0 and below 1",
            Self::Probability => "above 0 and at most 1",
            Self::Positive | Self::Temperature => "above 0",
            Self::NotNegative => "at least 0",
            Self::Finite => "an ordinary number",
        }
    }
}

pub(super) fn required<T>(
    value: Option<T>,
    flag: &'static str,
    what: &'static str,
) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing { flag, what })
}

pub(super) fn at_least_one(flag: &'static str, value: usize) -> Result<usize, ConfigError> {
    if value == 0 {
        Err(ConfigError::Zero { flag })
    } else {
        Ok(value)
    }
}

pub(super) fn within(
    flag: &'static str,
    value: f64,
    expected: Expected,
) -> Result<f64, ConfigError> {
    if expected.accepts(value) {
        Ok(value)
    } else {
        Err(ConfigError::OutOfRange {
            flag,
            value,
            expected,
        })
    }
}

/// Why flags that parsed were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("{what} must be named with `--{flag}`")]
    Missing {
        flag: &'static str,
        what: &'static str,
    },
    #[error("`--{flag}` is 0")]
    Zero { flag: &'static str },
    #[error("`--{flag}` is {value}, expected a number {}", expected.words())]
    OutOfRange {
        flag: &'static str,
        value: f64,
        expected: Expected,
    },
    #[error(
        "`--prefix` is {prefix} and `--seq-len` is {seq_len}: no token is left to score after the prompt"
    )]
    NothingToScore { prefix: usize, seq_len: usize },
    #[error(
        "`--prefix` is {prefix} and `--context` is {context}: no token is left to score in a window"
    )]
    PrefixFillsWindow { prefix: usize, context: usize },
    #[error(
        "`--stride` is {stride} and `--context` is {context}: tokens between the windows would be left out"
    )]
    StrideSkipsTokens { stride: usize, context: usize },
    #[error("`--context` is 1: a window of one token has nothing to predict")]
    ContextTooShort,
    #[error("`--{flag}` names `{value}` twice")]
    Twice { flag: &'static str, value: String },
    #[error("`--{flag}` shapes a memory, and none is asked for")]
    NoMemory { flag: &'static str },
    #[error("`--{flag}` has an empty entry")]
    EmptyEntry { flag: &'static str },
    #[error("`--answers` is for alpaca: wikitext has no answers")]
    NoAnswers,
    #[error("`--stop` is empty, which every text contains")]
    EmptyStop,
    #[error(
        "a hypernetwork is compared with one that gets the conditions of other groups, and `--clusters` is 1"
    )]
    NoOtherCluster,
    #[error("with `--condition {condition}` the size of a group changes nothing")]
    GroupSizeWithoutEffect { condition: String },
    #[error("a sweep shows the gain of a hypernetwork, and `--methods` names none")]
    NothingToSweep,
    #[cfg(feature = "serve")]
    #[error("`{name}` is no name that a model can be served by")]
    ServedName { name: String },
    #[cfg(feature = "serve")]
    #[error("`--listen` is {listen}, which others can reach, and there is no key")]
    OpenToOthers { listen: SocketAddr },
}

impl ConfigError {
    /// What to do about it.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Missing { flag, .. } => {
                format!("add `--{flag} ..` or write `{flag} = ..` in the file of `--config`")
            }
            Self::Zero { flag } => format!("give `--{flag}` 1 or more"),
            Self::OutOfRange {
                flag: "temperature",
                ..
            } => "use `--greedy` to always take the likeliest token, or a temperature such as 0.8"
                .to_owned(),
            Self::OutOfRange { flag, expected, .. } => {
                format!("give `--{flag}` a number {}", expected.words())
            }
            Self::NothingToScore { seq_len, .. } => format!(
                "make `--prefix` smaller than {seq_len}, or `--seq-len` larger; a quarter of the text is a good prompt"
            ),
            Self::PrefixFillsWindow { context, .. } => {
                format!("make `--prefix` smaller than {context}, or `--context` larger")
            }
            Self::StrideSkipsTokens { context, .. } => {
                format!("make `--stride` {context} or less; {context} is no overlap at all")
            }
            Self::ContextTooShort => "give `--context` 2 or more".to_owned(),
            Self::Twice { flag, .. } => format!("name each entry of `--{flag}` once"),
            Self::EmptyEntry { flag } => {
                format!("separate the entries of `--{flag}` by single commas")
            }
            Self::NoMemory { flag } => format!("add `--memory`, or leave `--{flag}` out"),
            Self::NoOtherCluster => {
                "give `--clusters` 2 or more, or compare `--methods lora` alone".to_owned()
            }
            Self::GroupSizeWithoutEffect { .. } => {
                "add `--condition batch` or `--condition blend`".to_owned()
            }
            Self::NothingToSweep => "add `core` or `dense` to `--methods`".to_owned(),
            Self::NoAnswers => "leave `--answers` out".to_owned(),
            Self::EmptyStop => "leave `--stop` out, or give it the text to stop at".to_owned(),
            #[cfg(feature = "serve")]
            Self::ServedName { .. } => {
                "give `--name` 1 to 64 letters, digits, `-`, `_` and `.`".to_owned()
            }
            #[cfg(feature = "serve")]
            Self::OpenToOthers { .. } => {
                "set a key with `--api-key` or `CHAMELEON_API_KEY`, or add `--insecure-listen`"
                    .to_owned()
            }
        }
    }
}
