//! `chameleon score`: scores answers against reference answers.

use std::path::Path;

use chameleon_models::data::{self, ReadOptions};
use chameleon_models::training::text_metrics::{Bleu, Meteor, Stemming, bleu, meteor, rouge};
use serde::Serialize;

use crate::{
    args::ScoreArgs,
    commands::Context,
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
};

pub(crate) fn run(args: &ScoreArgs, context: &Context) -> Result<ExitStatus, CliError> {
    let read = |path: &Path, field: &str, flag| {
        data::read_column(path, field, &ReadOptions::default())
            .map_err(|source| CliError::ScoredField { flag, source })
    };
    let answers = read(
        &args.predictions,
        &args.prediction_field,
        "--prediction-field",
    )?;
    let references = read(&args.references, &args.reference_field, "--reference-field")?;
    if answers.len() != references.len() {
        return Err(CliError::UnequalAnswers {
            answers: answers.len(),
            references: references.len(),
        });
    }
    if answers.is_empty() {
        return Err(CliError::NoAnswers {
            path: args.predictions.clone(),
        });
    }
    let pairs: Vec<(String, String)> = answers.into_iter().zip(references).collect();
    let bleu = bleu(&pairs);
    let stemming = if args.stem {
        Stemming::Porter
    } else {
        Stemming::Off
    };
    let rouge = rouge(&pairs, stemming);
    context.output.results(&ScoreReport {
        num_pairs: pairs.len(),
        bleu: bleu.score,
        bleu_precisions: bleu.precisions,
        bleu_brevity_penalty: bleu.brevity_penalty,
        bleu_signature: Bleu::signature(),
        rouge1: rouge.rouge1,
        rouge2: rouge.rouge2,
        rouge_l: rouge.rouge_l,
        rouge_stemming: args.stem,
        meteor: meteor(&pairs).score,
        meteor_stages: Meteor::STAGES,
    })?;
    Ok(ExitStatus::Done)
}

#[derive(Debug, Serialize)]
struct ScoreReport {
    num_pairs: usize,
    bleu: f64,
    bleu_precisions: [f64; 4],
    bleu_brevity_penalty: f64,
    bleu_signature: String,
    rouge1: f64,
    rouge2: f64,
    rouge_l: f64,
    rouge_stemming: bool,
    meteor: f64,
    meteor_stages: [&'static str; 2],
}

impl Results for ScoreReport {
    fn write_text(&self, page: &mut Page) {
        let mut table = Table::new([Column::text(""), Column::number(""), Column::text("")]);
        let mut row = |name: &str, score: f64, how: String| {
            table.row([name.to_owned(), format!("{score:.2}"), how]);
        };
        let stems = if self.rouge_stemming {
            "stems"
        } else {
            "words"
        };
        row("BLEU", self.bleu, self.bleu_signature.clone());
        row("ROUGE-1", self.rouge1, format!("F-measure, {stems}"));
        row("ROUGE-2", self.rouge2, format!("F-measure, {stems}"));
        row("ROUGE-L", self.rouge_l, format!("F-measure, {stems}"));
        row(
            "METEOR",
            self.meteor,
            format!("stages: {}", self.meteor_stages.join(", ")),
        );
        page.table(&table);
        page.line(format!("{} answers", self.num_pairs));
    }
}
