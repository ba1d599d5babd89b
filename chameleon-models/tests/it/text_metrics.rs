//! Text scores against the Python packages, on 40 pairs.

use std::collections::BTreeMap;
use std::path::Path;

use chameleon_models::training::text_metrics::{Bleu, Stemming, bleu, meteor, rouge, stem};
use serde::Deserialize;

/// On the scale from 0 to 100.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Expected {
    pairs: Vec<(String, String)>,
    signature: String,
    bleu: f64,
    precisions: Vec<f64>,
    bleu_of_each: Vec<f64>,
    rouge: BTreeMap<String, f64>,
    rouge_stemmed: BTreeMap<String, f64>,
    meteor: f64,
    meteor_of_each: Vec<f64>,
    stems: BTreeMap<String, String>,
}

fn expected() -> Expected {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text_metrics");
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn assert_near(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() < TOLERANCE,
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn bleu_is_that_of_sacrebleu() {
    let expected = expected();
    assert_eq!(expected.pairs.len(), 40);
    let found = bleu(&expected.pairs);
    assert_near(found.score, expected.bleu, "corpus");
    for (found, expected) in found.precisions.iter().zip(&expected.precisions) {
        assert_near(*found, *expected, "precision");
    }
    for (pair, expected) in expected.pairs.iter().zip(&expected.bleu_of_each) {
        let found = bleu(std::slice::from_ref(pair)).score;
        assert_near(found, *expected, &format!("{pair:?}"));
    }
    let settings = |signature: &str| signature.split("|version:").next().map(str::to_owned);
    assert_eq!(settings(&Bleu::signature()), settings(&expected.signature));
}

#[test]
fn rouge_is_that_of_rouge_score() {
    let expected = expected();
    for (stemming, scores) in [
        (Stemming::Off, &expected.rouge),
        (Stemming::Porter, &expected.rouge_stemmed),
    ] {
        let found = rouge(&expected.pairs, stemming);
        assert_near(found.rouge1, scores["rouge1"], "ROUGE-1");
        assert_near(found.rouge2, scores["rouge2"], "ROUGE-2");
        assert_near(found.rouge_l, scores["rougeL"], "ROUGE-L");
    }
}

#[test]
fn meteor_is_that_of_nltk_without_synonyms() {
    let expected = expected();
    assert_near(meteor(&expected.pairs).score, expected.meteor, "mean");
    for (pair, expected) in expected.pairs.iter().zip(&expected.meteor_of_each) {
        let found = meteor(std::slice::from_ref(pair)).score;
        assert_near(found, *expected, &format!("{pair:?}"));
    }
}

#[test]
fn stems_are_those_of_nltk() {
    for (word, expected) in expected().stems {
        assert_eq!(stem(&word), expected, "{word}");
    }
}
