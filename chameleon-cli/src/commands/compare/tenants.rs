//! `chameleon compare --group-field`: what exemplars are worth for groups that no training has seen.

use std::path::PathBuf;

use chameleon_models::files::atomic_file;
use chameleon_models::training::TrainingError;
use chameleon_models::training::experiment::{
    Interval, TenantComparison, TenantConfig, TenantReport,
};
use serde::Serialize;

use super::{TABLE_FILE, read, refuse_taken};
use crate::{
    commands::Context,
    errors::CliError,
    output::{Column, Page, Results, Table},
    resolve::CompareConfig,
};

/// `compare.json`
#[derive(Debug, Serialize)]
pub(super) struct TenantResults {
    command: Vec<String>,
    version: &'static str,
    device: String,
    #[serde(flatten)]
    report: TenantReport,
    out: PathBuf,
}

pub(super) fn run(
    config: &CompareConfig,
    tenants: &TenantConfig,
    context: &Context,
) -> Result<TenantResults, CliError> {
    refuse_taken(config)?;
    let data = read(config, &tenants.training, context)?;
    let out = &config.out;
    let report = TenantComparison {
        config: tenants,
        data: &data,
        out,
        observer: context,
    }
    .run()?;
    let results = TenantResults {
        command: std::env::args().collect(),
        version: env!("CARGO_PKG_VERSION"),
        device: context.settings.device.to_string(),
        report,
        out: out.clone(),
    };
    std::fs::create_dir_all(out).map_err(TrainingError::file("make the folder", out))?;
    let json = serde_json::to_vec_pretty(&results).expect("a report is plain data");
    atomic_file::write(&out.join(TABLE_FILE), &json)?;
    Ok(results)
}

impl Results for TenantResults {
    fn write_text(&self, page: &mut Page) {
        let report = &self.report;
        page.line(format_args!(
            "{} groups that no training has seen, {} requests, seeds {:?}",
            report.num_tenants, report.num_requests, report.seeds
        ));
        page.heading("methods");
        let mut table = Table::new([
            Column::text("method"),
            Column::number("exemplars"),
            Column::text("exact [95 %]"),
            Column::text("new answers [95 %]"),
            Column::number("nats/token"),
            Column::number("adapt ms"),
            Column::number("prompt tokens"),
            Column::number("prompt ms"),
        ]);
        for row in &report.rows {
            table.row([
                row.method.to_string(),
                row.num_exemplars.to_string(),
                share(row.exact),
                row.exact_new.map_or_else(String::new, share),
                row.loss
                    .map_or_else(String::new, |loss| format!("{loss:.3}")),
                milliseconds(row.adapt_seconds),
                format!("{:.0}", row.prompt_tokens),
                milliseconds(row.prompt_seconds),
            ]);
        }
        page.table(&table);
        page.line(
            "exact: greedy decoding gives the whole answer and its end; new answers: those that no exemplar has; \
             intervals over groups and seeds",
        );
        page.heading("files");
        for file in [TABLE_FILE, "runs"] {
            page.line(self.out.join(file).display());
        }
    }
}

/// `59.7 % [51.9, 66.9]`
fn share(interval: Interval) -> String {
    let Interval { mean, low, high } = interval;
    format!(
        "{:.1} % [{:.1}, {:.1}]",
        100.0 * mean,
        100.0 * low,
        100.0 * high
    )
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.0}", 1000.0 * seconds)
}
