//! Parsers of single values: numbers within a range, and values of the libraries by their names.

#[cfg(feature = "serve")]
use std::time::Duration;

use chameleon_cluster::Engine;
use chameleon_models::WeightStorage;
use chameleon_models::data::InstructionCondition;
use chameleon_models::training::Method;
use chameleon_models::training::recipes::{Experiment, PublishedLoss};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A whole number of at least `MIN`.
pub(super) fn at_least<const MIN: usize>(text: &str) -> Result<usize, String> {
    let parsed = text.parse().ok().filter(|&value| value >= MIN);
    parsed.ok_or_else(|| format!("expected a whole number of at least {MIN}"))
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    number(text, "above 0", |value| value > 0.0)
}

pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    number(text, "of at least 0", |value| value >= 0.0)
}

pub(super) fn finite(text: &str) -> Result<f64, String> {
    number(text, "that is finite", |_| true)
}

/// A fraction strictly between 0 and 1.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    number(text, "above 0 and below 1", |value| {
        value > 0.0 && value < 1.0
    })
}

pub(super) fn fraction_or_zero(text: &str) -> Result<f64, String> {
    number(text, "of at least 0 and below 1", |value| {
        (0.0..1.0).contains(&value)
    })
}

pub(super) fn probability(text: &str) -> Result<f32, String> {
    let parsed = text.parse().ok();
    parsed
        .filter(|&value| value > 0.0 && value <= 1.0)
        .ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}

/// A sampling temperature.
pub(super) fn temperature(text: &str) -> Result<f32, String> {
    let parsed = text.parse().ok();
    parsed
        .filter(|value: &f32| value.is_finite() && *value > 0.0)
        .ok_or_else(|| {
            "expected a number above 0; `--greedy` always takes the most likely token".to_owned()
        })
}

/// A positive number of seconds.
#[cfg(feature = "serve")]
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    // Longer than any server runs, and short enough to be added to any point in time.
    const MAX_SECONDS: f64 = 1e9;
    positive(text).map(|seconds| Duration::from_secs_f64(seconds.min(MAX_SECONDS)))
}

fn number(text: &str, range: &str, accepts: impl Fn(f64) -> bool) -> Result<f64, String> {
    let parsed = text.parse().ok();
    parsed
        .filter(|value: &f64| value.is_finite() && accepts(*value))
        .ok_or_else(|| format!("expected a number {range}"))
}

pub(super) fn weight_storage() -> impl TypedValueParser<Value = WeightStorage> {
    // Without help of their own: it would make the help of every command a long one.
    let stored = PossibleValue::new("stored").aliases(["quantised", "packed"]);
    let f32 = PossibleValue::new("f32").alias("numbers");
    one_of([(stored, WeightStorage::Stored), (f32, WeightStorage::F32)])
}

pub(super) fn engine() -> impl TypedValueParser<Value = Engine> {
    let burn = PossibleValue::new("burn").help("Matrix products on the device of --device");
    let linfa = PossibleValue::new("linfa").help("The linfa crate on the CPU, in f64");
    one_of([(burn, Engine::MatrixProducts), (linfa, Engine::Linfa)])
}

pub(super) fn instruction_condition() -> impl TypedValueParser<Value = InstructionCondition> {
    let task = PossibleValue::new("task").help("The instruction alone");
    let both = PossibleValue::new("task-and-input")
        .alias("task-input")
        .help("The instruction and its input");
    one_of([
        (task, InstructionCondition::Task),
        (both, InstructionCondition::TaskAndInput),
    ])
}

pub(super) fn experiment() -> impl TypedValueParser<Value = Experiment> {
    let wikitext = PossibleValue::new("wikitext").help("WikiText-2 raw, line by line");
    let alpaca = PossibleValue::new("alpaca").help("Alpaca-cleaned, instructions with answers");
    one_of([
        (wikitext, Experiment::Wikitext),
        (alpaca, Experiment::Alpaca),
    ])
}

pub(super) fn published_loss() -> impl TypedValueParser<Value = PublishedLoss> {
    let last = PossibleValue::new("last").help("The last position of each row");
    let full = PossibleValue::new("full").help("Every position");
    one_of([(last, PublishedLoss::Last), (full, PublishedLoss::Full)])
}

/// Every method of a comparison by its name.
pub(super) fn method() -> impl TypedValueParser<Value = Method> {
    let names = Method::ALL.iter().map(|method| {
        let name = method.to_string();
        let older = name.replace("-redrawn", "-shuffled");
        let value = PossibleValue::new(name.clone()).help(method.summary());
        if older == name {
            value
        } else {
            value.alias(older)
        }
    });
    let names = PossibleValuesParser::new(names);
    names.map(|name| name.parse().expect("clap accepts the listed names only"))
}

/// The libraries do not depend on clap, so their values are named here.
fn one_of<T, const N: usize>(choices: [(PossibleValue, T); N]) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    let (names, values): (Vec<_>, Vec<_>) = choices.into_iter().unzip();
    PossibleValuesParser::new(names.clone()).map(move |typed| {
        let idx = names.iter().position(|name| name.matches(&typed, false));
        values[idx.expect("clap accepts the listed names only")].clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_keep_their_ends() {
        assert_eq!(at_least::<1>("1"), Ok(1));
        assert!(at_least::<2>("1").is_err());
        assert!(at_least::<1>("-1").is_err());
        assert!(fraction("0").is_err() && fraction("1").is_err());
        assert_eq!(fraction_or_zero("0"), Ok(0.0));
        assert_eq!(probability("1"), Ok(1.0));
        assert!(probability("0").is_err() && probability("1.01").is_err());
        for text in ["nan", "inf", "one", ""] {
            assert!(finite(text).is_err(), "{text}");
            assert!(temperature(text).is_err(), "{text}");
            assert!(probability(text).is_err(), "{text}");
        }
        // Above zero as f64, zero as f32.
        assert!(temperature("1e-300").is_err());
    }
}
