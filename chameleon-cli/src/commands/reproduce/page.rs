//! `report.html`: a reproduction on one page.

use chameleon_models::training::Method;
use chameleon_models::training::experiment::Interval;
use chameleon_models::training::recipes::RecipeRow;

use crate::report::{
    Block, ChartPoint, HtmlTable, LineChart, ReportPage, Scale, Series, command_line, gibibytes,
    interval_figure,
};

use super::report::{ANSWER_COLUMNS, ReproduceResults, answer_rows, method_cells};

/// The page of a finished reproduction.
pub(super) fn page(report: &ReproduceResults) -> ReportPage {
    let mut blocks = vec![
        heading("Findings"),
        Block::Findings {
            findings: report.report.findings.clone(),
        },
    ];
    for recipe in &report.report.recipes {
        blocks.push(heading(&recipe.name));
        blocks.push(Block::Table {
            table: methods_table(recipe),
        });
        blocks.extend(answers(recipe));
        blocks.extend(differences(recipe));
        blocks.extend(curves(recipe));
    }
    blocks.push(heading("Settings"));
    blocks.push(Block::Facts {
        rows: facts(report),
    });
    ReportPage {
        title: format!(
            "{} as the paper measures it, and otherwise",
            report.experiment
        ),
        lead: report.sentence(),
        blocks,
    }
}

fn heading(text: &str) -> Block {
    Block::Heading {
        text: text.to_owned(),
    }
}

/// Every method against LoRA.
fn differences(recipe: &RecipeRow) -> Option<Block> {
    let rows: Vec<(String, Interval)> = recipe
        .methods
        .iter()
        // The frozen model is so far off that the others would be indistinguishable on the chart.
        .filter(|row| row.method != Method::FROZEN)
        .filter_map(|row| Some((row.method.to_string(), row.difference?)))
        .collect();
    (!rows.is_empty()).then(|| {
        interval_figure(
            &format!("{}: differences from lora", recipe.name),
            if recipe.leaks {
                "With 95 % intervals; left of the dashed line is better than lora. The conditions hold what is scored: \
                 no such gain can be had in use."
            } else {
                "With 95 % intervals; left of the dashed line is better than lora."
            },
            &rows,
        )
    })
}

fn methods_table(recipe: &RecipeRow) -> HtmlTable {
    let leaks = if recipe.leaks {
        "; its conditions hold what is scored"
    } else {
        ""
    };
    let mut table = HtmlTable::of_numbers(
        &format!("{}{leaks}", recipe.facts),
        [
            "method",
            "parameters",
            "valid loss",
            "valid ppl",
            "epoch",
            "test ppl",
            "nats against lora",
            "seconds",
            "memory",
        ],
    );
    for row in &recipe.methods {
        let memory = row.peak_memory_bytes.map_or_else(String::new, gibibytes);
        table.row(method_cells(row).into_iter().chain([memory]));
    }
    table
}

fn answers(recipe: &RecipeRow) -> Option<Block> {
    let rows = answer_rows(recipe);
    if rows.is_empty() {
        return None;
    }
    let mut table = HtmlTable::of_numbers(
        "Answers of the first seed against the references, from 0 to 100",
        ANSWER_COLUMNS,
    );
    for row in rows {
        table.row(row);
    }
    Some(Block::Table { table })
}

/// The validation loss of the first seed, and both losses of all in the table.
fn curves(recipe: &RecipeRow) -> Option<Block> {
    let title = format!("{}: validation loss by epoch", recipe.name);
    let mut table = HtmlTable::of_numbers(
        "Nats per token",
        ["method", "seed", "epoch", "training", "validation"],
    );
    let mut series = Vec::new();
    for row in &recipe.methods {
        for run in &row.runs {
            for epoch in &run.curve {
                table.row([
                    row.method.to_string(),
                    run.seed.to_string(),
                    epoch.epoch.to_string(),
                    format!("{:.4}", epoch.train_loss),
                    format!("{:.4}", epoch.valid_loss),
                ]);
            }
        }
        let curve = row.runs.first().map_or(&[][..], |run| &run.curve);
        if !curve.is_empty() {
            let point = |x, y| ChartPoint {
                x,
                y,
                interval: None,
            };
            series.push(Series {
                name: row.method.to_string(),
                points: curve
                    .iter()
                    .map(|epoch| point(epoch.epoch as f64, epoch.valid_loss))
                    .collect(),
            });
        }
    }
    if series.is_empty() {
        return None;
    }
    Some(Block::Figure {
        title: title.clone(),
        caption:
            "First seed. Losses under different recipes are of different tokens and do not compare."
                .to_owned(),
        svg: LineChart {
            title,
            x_label: "epoch".to_owned(),
            y_label: "nats per token".to_owned(),
            x_scale: Scale::Linear,
            series,
            reference: None,
        }
        .svg(),
        table,
    })
}

fn facts(report: &ReproduceResults) -> Vec<[String; 2]> {
    let seeds: Vec<String> = report.seeds.iter().map(u64::to_string).collect();
    let mut rows = [
        ("command", command_line(&report.command)),
        (
            "program",
            format!("chameleon {}, burn {}", report.version, report.burn_version),
        ),
        ("device", report.device.clone()),
        ("model", report.model.clone()),
        ("seeds", seeds.join(", ")),
        ("prompt under causal", format!("{} tokens", report.prefix)),
        ("seconds", format!("{:.0} in this call", report.seconds)),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .to_vec();
    if let Some(bytes) = report.report.peak_memory_bytes {
        rows.push(["memory at most".to_owned(), gibibytes(bytes)]);
    }
    rows
}
