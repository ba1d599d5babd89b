//! The results of a comparison: the table on standard output, and `compare.json`.

use std::path::PathBuf;

use chameleon_core::device::BackendKind;
use chameleon_models::training::experiment::{
    BreakdownRow, ComparisonReport, Interval, percent, signed,
};
use serde::Serialize;

use crate::{
    commands::{Context, info::BURN_VERSION},
    output::{Column, Page, Results, Table},
};

/// `compare.json`
#[derive(Debug, Clone, Serialize)]
pub(super) struct CompareResults {
    pub(super) command: Vec<String>,
    pub(super) version: &'static str,
    pub(super) burn_version: &'static str,
    pub(super) backends: Vec<BackendKind>,
    pub(super) device: String,
    #[serde(flatten)]
    pub(super) report: ComparisonReport,
    pub(super) out: PathBuf,
}

impl CompareResults {
    /// A report with its settings; `out` is the folder of its files.
    pub(super) fn new(report: ComparisonReport, out: PathBuf, context: &Context) -> Self {
        Self {
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            burn_version: BURN_VERSION,
            backends: BackendKind::compiled_in(),
            device: context.settings.device.to_string(),
            report,
            out,
        }
    }
}

impl Results for CompareResults {
    fn write_text(&self, page: &mut Page) {
        page.line(format_args!(
            "{} training, {} validation and {} test examples of {} tokens, prefix {}, {} groups, seeds {:?}",
            self.report.num_train_examples,
            self.report.num_valid_examples,
            self.report.num_test_examples,
            self.report.seq_len,
            self.report.prefix,
            self.report.num_clusters,
            self.report.seeds
        ));
        page.heading("methods");
        self.write_methods(page);
        page.line(format_args!(
            "intervals: 95 % of the differences when {} are drawn anew",
            self.report.resampled
        ));
        if !self.report.labels.is_empty() {
            self.write_breakdown(page, "perplexity by label", &self.report.labels);
        }
        self.write_breakdown(page, "perplexity by group", &self.report.clusters);
        if !self.report.findings.is_empty() {
            page.heading("findings");
        }
        for finding in &self.report.findings {
            page.line(finding.line());
        }
        page.heading("files");
        for file in ["report.html", "compare.json", "runs"] {
            page.line(self.out.join(file).display());
        }
    }
}

impl CompareResults {
    fn write_methods(&self, page: &mut Page) {
        let mut table = Table::new([
            Column::text("method"),
            Column::number("parameters"),
            Column::number("lr"),
            Column::number("epoch"),
            Column::number("perplexity"),
            Column::number("nats/token"),
            Column::text("difference [95 %]"),
            Column::text("perplexity [95 %]"),
            Column::text("against"),
            Column::number("seconds"),
        ]);
        for row in &self.report.methods {
            let interval =
                |write: fn(Interval) -> String| row.difference.map_or_else(String::new, write);
            table.row([
                row.method.to_string(),
                row.num_trainable_params.to_string(),
                row.chosen
                    .map_or_else(String::new, |chosen| chosen.learning_rate.to_string()),
                row.chosen
                    .map_or_else(String::new, |chosen| chosen.kept.epoch.to_string()),
                format!("{:.3}", row.perplexity),
                format!("{:.4}", row.loss),
                interval(|interval| signed(interval, 4)),
                interval(percent),
                row.baseline
                    .map_or_else(String::new, |baseline| baseline.to_string()),
                format!("{:.0}", row.seconds),
            ]);
        }
        page.table(&table);
    }

    fn write_breakdown(&self, page: &mut Page, title: &str, rows: &[BreakdownRow]) {
        page.heading(title);
        let columns = self
            .report
            .methods
            .iter()
            .map(|row| Column::number(row.method.to_string()));
        let mut table = Table::new(
            [Column::text(""), Column::number("examples")]
                .into_iter()
                .chain(columns),
        );
        for row in rows {
            let cells = self.report.methods.iter().map(|method| {
                row.perplexity
                    .get(&method.method.to_string())
                    .map_or_else(String::new, |value| format!("{value:.2}"))
            });
            table.row(
                [row.name.clone(), row.num_examples.to_string()]
                    .into_iter()
                    .chain(cells),
            );
        }
        page.table(&table);
    }
}
