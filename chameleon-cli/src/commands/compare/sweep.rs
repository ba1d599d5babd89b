//! A comparison at each value of one setting, and how the gain moves with it.
//!
//! Prefixes are compared on the same texts, whose hidden states are computed once. Group sizes share every training:
//! only the test is scored again, with other numbers of texts behind a condition.

use std::path::PathBuf;
use std::time::Instant;

use chameleon_models::{Interval, atomic_file};
use serde::Serialize;

use crate::{
    args::{Sweep, SweptSetting},
    commands::{
        Context,
        prepare::{Part, grouped},
    },
    errors::CliError,
    output::{Column, Page, Results, Table},
    report::{percent, signed},
    resolve::CompareConfig,
};

use super::table::CompareReport;
use super::{PreparedStates, compare, finish, refuse_taken};

/// `sweep.json`
#[derive(Debug, Serialize)]
pub(super) struct SweepReport {
    setting: &'static str,
    method: &'static str,
    points: Vec<SweepPoint>,
    seconds: f64,
    out: PathBuf,
}

/// The gain at one value of the setting.
#[derive(Debug, Serialize)]
struct SweepPoint {
    value: usize,
    perplexity: f64,
    num_test_tokens: usize,
    gains: Vec<Gain>,
    out: PathBuf,
}

/// The method against something it has to beat.
#[derive(Debug, Serialize)]
struct Gain {
    against: &'static str,
    /// Nats per token, with a 95 % interval; below zero is a gain.
    difference: Interval,
}

/// Every point, or `None` if the user asked to stop; points that are finished are kept.
pub(super) fn run(
    config: &CompareConfig,
    sweep: &Sweep,
    context: &Context,
) -> Result<Option<SweepReport>, CliError> {
    let start = Instant::now();
    let points = match sweep.setting {
        SweptSetting::Prefix => prefixes(config, &sweep.values, context)?,
        SweptSetting::GroupSize => group_sizes(config, &sweep.values, context)?,
    };
    let Some(points) = points else {
        return Ok(None);
    };
    let report = SweepReport {
        setting: sweep.setting.name(),
        method: points[0].1.duels[0].method,
        points: points
            .into_iter()
            .map(|(value, report)| SweepPoint::new(value, report))
            .collect(),
        seconds: start.elapsed().as_secs_f64(),
        out: config.out.clone(),
    };
    let json = serde_json::to_vec_pretty(&report).expect("a report is plain data");
    atomic_file::write(&config.out.join("sweep.json"), &json)?;
    Ok(Some(report))
}

type Points = Vec<(usize, CompareReport)>;

fn point_folder(config: &CompareConfig, setting: SweptSetting, value: usize) -> PathBuf {
    config.out.join(format!("{}-{value}", setting.name()))
}

fn prefixes(
    config: &CompareConfig,
    values: &[usize],
    context: &Context,
) -> Result<Option<Points>, CliError> {
    let point_config = |prefix: usize| {
        let mut point = config.clone();
        point.out = point_folder(config, SweptSetting::Prefix, prefix);
        let span = &mut point.training.span;
        span.prefix = prefix;
        span.smallest_prefix = values.iter().copied().fold(prefix, usize::min);
        span.largest_prefix = values.iter().copied().fold(prefix, usize::max);
        point
    };
    // Before the first point has taken its time.
    for &prefix in values {
        refuse_taken(&point_config(prefix))?;
    }
    values
        .iter()
        .map(|&prefix| {
            context.output.note(format_args!("prefix {prefix}"));
            let report = compare(&point_config(prefix), context)?;
            Ok(report.map(|report| (prefix, report)))
        })
        .collect()
}

fn group_sizes(
    config: &CompareConfig,
    values: &[usize],
    context: &Context,
) -> Result<Option<Points>, CliError> {
    refuse_taken(config)?;
    let Some(texts) = PreparedStates::of(config, context)? else {
        return Ok(None);
    };
    texts.comparison(config, context).check_store()?;
    values
        .iter()
        .map(|&size| {
            context.output.note(format_args!("group size {size}"));
            let data = texts.test.data.clone();
            let test = Part {
                data: grouped(
                    data.examples,
                    data.prompt_embeddings,
                    data.assignments,
                    size,
                )?,
                label_names: texts.test.label_names.clone(),
            };
            let mut comparison = texts.comparison(config, context);
            comparison.test = &test;
            comparison.group_size = Some(size);
            let out = point_folder(config, SweptSetting::GroupSize, size);
            let report = finish(&comparison, out, Instant::now())?;
            Ok(report.map(|report| (size, report)))
        })
        .collect()
}

impl SweepPoint {
    fn new(value: usize, report: CompareReport) -> Self {
        let method = report.duels[0].method;
        let perplexity = report
            .methods
            .iter()
            .find(|row| row.method == method)
            .map_or(f64::NAN, |row| row.perplexity);
        Self {
            value,
            perplexity,
            num_test_tokens: report.num_test_tokens,
            gains: report
                .duels
                .iter()
                .filter(|duel| duel.method == method)
                .map(|duel| Gain {
                    against: duel.against,
                    difference: duel.difference,
                })
                .collect(),
            out: report.out,
        }
    }
}

impl Results for SweepReport {
    fn write_text(&self, page: &mut Page) {
        page.line(format_args!(
            "{} at each {}: nats per token and change of perplexity [95 %]",
            self.method, self.setting
        ));
        let mut table = Table::new([
            Column::number(self.setting),
            Column::number("perplexity"),
            Column::text("against"),
            Column::text("nats/token"),
            Column::text("perplexity"),
        ]);
        for point in &self.points {
            for gain in &point.gains {
                table.row([
                    point.value.to_string(),
                    format!("{:.3}", point.perplexity),
                    gain.against.to_owned(),
                    signed(gain.difference, 4),
                    percent(gain.difference),
                ]);
            }
        }
        page.table(&table);
        page.heading("files");
        page.line(self.out.join("sweep.json").display());
    }
}
