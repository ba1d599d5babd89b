//! `report.html`: a comparison on one page.

mod prompts;

use chameleon_models::training::experiment::{
    BreakdownRow, Comparison, ComparisonReport, Interval, MethodRow, MethodRuns, TrainedRun,
    percent,
};

use crate::{
    commands::adapter::memory_size,
    errors::CliError,
    report::{
        Block, ChartPoint, HtmlTable, LineChart, ReportPage, Scale, Series, command_line,
        gibibytes, interval_figure,
    },
};

use super::table::CompareResults;

/// The page of a finished comparison.
pub(super) fn page(
    results: &CompareResults,
    comparison: &Comparison<'_>,
    methods: &[MethodRuns],
) -> Result<ReportPage, CliError> {
    let report = &results.report;
    let mut blocks = vec![
        heading("Findings"),
        Block::Findings {
            findings: report.findings.clone(),
        },
        heading("Methods"),
        Block::Table {
            table: methods_table(report),
        },
    ];
    blocks.extend(differences(report));
    blocks.push(heading("Learning curves"));
    blocks.extend(curves(report));
    let parts = [
        ("Kinds of text", "label", &report.labels),
        ("Groups", "group", &report.clusters),
    ];
    for (title, kind, rows) in parts {
        if !rows.is_empty() {
            blocks.push(heading(title));
            blocks.push(breakdown_table(report, kind, rows));
            blocks.extend(breakdown_figure(report, kind, rows));
        }
    }
    blocks.push(prompts::map(comparison)?);
    blocks.extend(prompts::samples(report, comparison, methods)?);
    blocks.push(heading("Settings"));
    blocks.push(Block::Facts {
        rows: facts(results),
    });
    Ok(ReportPage {
        title: match report.headline {
            Some(names) => format!("{} against {}", names.method, names.baseline),
            None => "Comparison".to_owned(),
        },
        lead: format!(
            "{} on {} test examples of {} documents, {} seed{}. Every method chose its learning rate and its epoch \
             on the same validation texts; the test was scored once.",
            report.model,
            report.num_test_examples,
            report.num_test_documents,
            report.seeds.len(),
            if report.seeds.len() == 1 { "" } else { "s" }
        ),
        blocks,
    })
}

fn heading(text: &str) -> Block {
    Block::Heading {
        text: text.to_owned(),
    }
}

fn or_empty<T>(value: Option<T>, write: impl FnOnce(T) -> String) -> String {
    value.map_or_else(String::new, write)
}

fn methods_table(report: &ComparisonReport) -> HtmlTable {
    let mut table = HtmlTable::of_numbers(
        &format!(
            "Scores on the test; changes of perplexity are paired by seed and example, with 95 % intervals over {}",
            report.resampled
        ),
        [
            "method",
            "parameters",
            "learning rate",
            "epoch",
            "perplexity",
            "change",
            "against",
            "nats/token",
            "bits/byte",
            "seconds",
            "memory",
        ],
    )
    .with_words(6);
    for row in &report.methods {
        table.row([
            row.method.to_string(),
            row.num_trainable_params.to_string(),
            or_empty(row.chosen, |chosen| chosen.learning_rate.to_string()),
            or_empty(row.chosen, |chosen| chosen.kept.epoch.to_string()),
            format!("{:.3}", row.perplexity),
            or_empty(row.difference, percent),
            or_empty(row.baseline, |baseline| baseline.to_string()),
            format!("{:.4}", row.loss),
            format!("{:.4}", row.bits_per_byte),
            format!("{:.0}", row.seconds),
            or_empty(row.peak_memory_bytes, gibibytes),
        ]);
    }
    table
}

/// Every method against its baseline, and the headline method against all its baselines and controls.
fn differences(report: &ComparisonReport) -> Vec<Block> {
    let versus: Vec<(String, Interval)> = report
        .comparisons
        .iter()
        .map(|row| (format!("{} vs {}", row.method, row.against), row.difference))
        .collect();
    let all: Vec<(String, Interval)> = report
        .methods
        .iter()
        .filter_map(|row| {
            Some((
                format!("{} vs {}", row.method, row.baseline?),
                row.difference?,
            ))
        })
        .collect();
    let rows = if versus.is_empty() { all } else { versus };
    if rows.is_empty() {
        return Vec::new();
    }
    vec![interval_figure(
        "Differences on the test",
        &format!(
            "Nats per token, with 95 % intervals over {}; left of the dashed line the first method is better. Blue \
             discs exclude zero on that side, orange triangles on the other.",
            report.resampled
        ),
        &rows,
    )]
}

fn curves(report: &ComparisonReport) -> Vec<Block> {
    let trained: Vec<(&MethodRow, &TrainedRun)> = report
        .methods
        .iter()
        // A memory is added to a trained adapter, whose curve has its own name.
        .filter(|row| row.method.memory.is_none())
        .filter_map(|row| Some((row, row.runs.first()?)))
        .collect();
    let mut blocks = Vec::new();
    if trained.is_empty() {
        return blocks;
    }
    let mut table = HtmlTable::of_numbers(
        "Nats per token with the chosen learning rate",
        ["method", "seed", "epoch", "training", "validation"],
    );
    for (row, _) in &trained {
        for run in &row.runs {
            for point in &run.curve {
                table.row([
                    row.method.to_string(),
                    run.seed.0.to_string(),
                    point.epoch.to_string(),
                    format!("{:.4}", point.train_loss),
                    format!("{:.4}", point.valid_loss),
                ]);
            }
        }
    }
    blocks.push(Block::Figure {
        title: "Validation loss by epoch".to_owned(),
        caption: "First seed, chosen learning rate. Each method keeps its lowest point.".to_owned(),
        svg: LineChart {
            title: "Validation loss by epoch".to_owned(),
            x_label: "epoch".to_owned(),
            y_label: "nats per token".to_owned(),
            x_scale: Scale::Linear,
            series: trained
                .iter()
                .map(|(row, run)| Series {
                    name: row.method.to_string(),
                    points: run
                        .curve
                        .iter()
                        .map(|point| plain(point.epoch as f64, point.valid_loss))
                        .collect(),
                })
                .collect(),
            reference: None,
        }
        .svg(),
        table,
    });
    if report.learning_rates.len() > 1 {
        blocks.push(trials(report));
    }
    blocks
}

fn plain(x: f64, y: f64) -> ChartPoint {
    ChartPoint {
        x,
        y,
        interval: None,
    }
}

fn trials(report: &ComparisonReport) -> Block {
    let title = "Learning rates that were tried";
    let mut table = HtmlTable::of_numbers(
        "Best validation loss of each trial, first seed",
        ["method", "learning rate", "epoch", "validation"],
    );
    let mut series = Vec::new();
    let trained = |row: &&MethodRow| row.method.memory.is_none() && !row.trials.is_empty();
    for row in report.methods.iter().filter(trained) {
        let mut points = Vec::new();
        for trial in &row.trials {
            let (epoch, loss) = match trial.kept {
                Some(kept) => {
                    points.push(plain(trial.learning_rate, kept.valid_loss));
                    (kept.epoch.to_string(), format!("{:.4}", kept.valid_loss))
                }
                None => (String::new(), "diverged".to_owned()),
            };
            let rate = trial.learning_rate.to_string();
            table.row([row.method.to_string(), rate, epoch, loss]);
        }
        points.sort_by(|left, right| left.x.total_cmp(&right.x));
        series.push(Series {
            name: row.method.to_string(),
            points,
        });
    }
    Block::Figure {
        title: title.to_owned(),
        caption: "Every method tried the same ones and took the lowest; one that is still falling at an end of the \
                  list may do better beyond it."
            .to_owned(),
        svg: LineChart {
            title: title.to_owned(),
            x_label: "learning rate".to_owned(),
            y_label: "best validation loss".to_owned(),
            x_scale: Scale::Logarithmic,
            series,
            reference: None,
        }
        .svg(),
        table,
    }
}

fn breakdown_table(report: &ComparisonReport, kind: &str, rows: &[BreakdownRow]) -> Block {
    let names = report.methods.iter().map(|row| row.method.to_string());
    let columns = [kind.to_owned(), "examples".to_owned()]
        .into_iter()
        .chain(names);
    let mut table = HtmlTable::of_numbers(&format!("Perplexity by {kind}"), columns);
    for row in rows {
        let perplexities = report.methods.iter().map(|method| {
            or_empty(row.perplexity.get(&method.method.to_string()), |value| {
                format!("{value:.2}")
            })
        });
        table.row(
            [row.name.clone(), row.num_examples.to_string()]
                .into_iter()
                .chain(perplexities),
        );
    }
    Block::Table { table }
}

fn breakdown_figure(report: &ComparisonReport, kind: &str, rows: &[BreakdownRow]) -> Option<Block> {
    let names = report.headline?;
    let rows: Vec<(String, Interval)> = rows
        .iter()
        .filter_map(|row| Some((row.name.clone(), row.difference?)))
        .collect();
    Some(interval_figure(
        &format!("{} against {} by {kind}", names.method, names.baseline),
        &format!(
            "Nats per token, with 95 % intervals over {} and seeds; left of the dashed line is a gain.",
            report.resampled.unit.name()
        ),
        &rows,
    ))
}

fn facts(results: &CompareResults) -> Vec<[String; 2]> {
    let report = &results.report;
    let seeds: Vec<String> = report.seeds.iter().map(u64::to_string).collect();
    let rates: Vec<String> = report.learning_rates.iter().map(f64::to_string).collect();
    let mut rows = [
        ("command", command_line(&results.command)),
        (
            "program",
            format!("chameleon {}, burn {}", results.version, results.burn_version),
        ),
        ("device", results.device.clone()),
        ("model", report.model.clone()),
        ("seeds", seeds.join(", ")),
        ("learning rates tried", rates.join(", ")),
        ("epochs at most", report.num_epochs.to_string()),
        (
            "texts",
            format!(
                "{} training, {} validation and {} test examples of at most {} tokens, the first {} of which \
                 are the prompt",
                report.num_train_examples,
                report.num_valid_examples,
                report.num_test_examples,
                report.seq_len,
                report.prefix
            ),
        ),
        (
            "scored",
            format!(
                "{} tokens of {} documents",
                report.num_test_tokens, report.num_test_documents
            ),
        ),
        (
            "resampled for the intervals",
            format!("whole {}: {}", report.resampled.unit.name(), report.resampled),
        ),
        ("groups", report.num_clusters.to_string()),
        ("seconds", format!("{:.0} in this call", report.seconds)),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .to_vec();
    if let Some(memory) = &report.memory {
        let prompts = if memory.with_prompts {
            ", and the prompts that are answered together"
        } else {
            ""
        };
        let size = memory_size(&memory.config, memory.num_entries);
        rows.push(["groups remember".to_owned(), format!("{size}{prompts}")]);
    }
    if let Some(information) = report.label_mutual_information {
        rows.push([
            "groups and labels".to_owned(),
            format!("normalised mutual information {information:.2}"),
        ]);
    }
    if let Some(bytes) = report.peak_memory_bytes {
        rows.push(["memory at most".to_owned(), gibibytes(bytes)]);
    }
    rows
}
