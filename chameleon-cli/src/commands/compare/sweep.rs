//! A comparison at each value of one setting, and the gain as a function of it.
//!
//! Prefixes are compared on the same texts, whose hidden states are computed once. Group sizes share every training:
//! only the test is scored again, with another number of texts for each condition.

use std::path::PathBuf;
use std::time::Instant;

use chameleon_models::files::atomic_file;
use chameleon_models::training::Method;
use chameleon_models::training::experiment::{Finding, Interval, percent, signed};
use serde::Serialize;

use crate::{
    args::{Sweep, SweptSetting},
    commands::Context,
    errors::CliError,
    output::{Column, Page, Results, Table},
    report::{
        Block, ChartPoint, HtmlTable, LineChart, Link, ReportPage, Scale, Series, command_line,
    },
    resolve::CompareConfig,
};

use super::table::CompareResults;
use super::{PAGE_FILE, compare, comparison, finish, prepare, refuse_taken};

/// `sweep.json`
#[derive(Debug, Serialize)]
pub(super) struct SweepReport {
    setting: &'static str,
    method: Method,
    command: String,
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
    findings: Vec<Finding>,
    out: PathBuf,
}

/// The method against one of its baselines or controls.
#[derive(Debug, Serialize)]
struct Gain {
    against: Method,
    /// Nats per token, with a 95 % interval; below zero is a gain.
    difference: Interval,
}

/// Runs every point; finished points are reused.
pub(super) fn run(
    config: &CompareConfig,
    sweep: &Sweep,
    context: &Context,
) -> Result<SweepReport, CliError> {
    let start = Instant::now();
    let points = match sweep.setting {
        SweptSetting::Prefix => prefixes(config, &sweep.values, context)?,
        SweptSetting::GroupSize => group_sizes(config, &sweep.values, context)?,
    };
    let report = SweepReport {
        setting: sweep.setting.name(),
        method: subject(&points[0].1),
        command: command_line(&points[0].1.command),
        points: points
            .into_iter()
            .map(|(value, report)| SweepPoint::new(value, report))
            .collect(),
        seconds: start.elapsed().as_secs_f64(),
        out: config.out.clone(),
    };
    let json = serde_json::to_vec_pretty(&report).expect("a report is plain data");
    atomic_file::write(&config.out.join(PAGE_FILE), report.page().html().as_bytes())?;
    atomic_file::write(&config.out.join("sweep.json"), &json)?;
    Ok(report)
}

type Points = Vec<(usize, CompareResults)>;

fn point_folder(config: &CompareConfig, setting: SweptSetting, value: usize) -> PathBuf {
    config.out.join(format!("{}-{value}", setting.name()))
}

fn prefixes(
    config: &CompareConfig,
    values: &[usize],
    context: &Context,
) -> Result<Points, CliError> {
    let point_config = |prefix: usize| {
        let mut point = config.clone();
        point.out = point_folder(config, SweptSetting::Prefix, prefix);
        let span = &mut point.comparison.training.span;
        span.prefix = prefix;
        span.smallest_prefix = values.iter().copied().fold(prefix, usize::min);
        span.largest_prefix = values.iter().copied().fold(prefix, usize::max);
        point
    };
    // Checked before the long work of the first point starts.
    for &prefix in values {
        refuse_taken(&point_config(prefix))?;
    }
    values
        .iter()
        .map(|&prefix| {
            context.output.note(format_args!("prefix {prefix}"));
            let report = compare(&point_config(prefix), context)?;
            Ok((prefix, report))
        })
        .collect()
}

fn group_sizes(
    config: &CompareConfig,
    values: &[usize],
    context: &Context,
) -> Result<Points, CliError> {
    refuse_taken(config)?;
    let texts = prepare(config, context)?;
    comparison(config, &texts, texts.test(), context).check_store()?;
    values
        .iter()
        .map(|&size| {
            context.output.note(format_args!("group size {size}"));
            let test = texts.test_in_batches_of(size)?;
            let mut comparison = comparison(config, &texts, &test, context);
            comparison.group_size = Some(size);
            let out = point_folder(config, SweptSetting::GroupSize, size);
            let report = finish(&comparison, out, Instant::now(), context)?;
            Ok((size, report))
        })
        .collect()
}

/// The method that a sweep is about.
fn subject(results: &CompareResults) -> Method {
    let headline = results.report.headline.as_ref();
    headline
        .expect("a sweep compares a method with its baselines")
        .method
}

impl SweepPoint {
    fn new(value: usize, results: CompareResults) -> Self {
        let method = subject(&results);
        let CompareResults { report, out, .. } = results;
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
                .comparisons
                .iter()
                .filter(|row| row.method == method)
                .map(|row| Gain {
                    against: row.against,
                    difference: row.difference,
                })
                .collect(),
            findings: report.findings,
            out,
        }
    }
}

impl SweepReport {
    /// Setting, perplexity, baseline, and the difference in nats and in percent: one row for each point and baseline.
    fn rows(&self) -> impl Iterator<Item = [String; 5]> {
        self.points.iter().flat_map(|point| {
            point.gains.iter().map(|gain| {
                [
                    point.value.to_string(),
                    format!("{:.3}", point.perplexity),
                    gain.against.to_string(),
                    signed(gain.difference, 4),
                    percent(gain.difference),
                ]
            })
        })
    }

    fn page(&self) -> ReportPage {
        let mut table = HtmlTable::of_numbers(
            &format!("{} at each {}", self.method, self.setting),
            [
                self.setting,
                "perplexity",
                "against",
                "nats per token",
                "perplexity [95 %]",
            ],
        )
        .with_words(2);
        for row in self.rows() {
            table.row(row);
        }
        let mut blocks = vec![
            Block::Figure {
                title: format!("Gain by {}", self.setting),
                caption: "Change of perplexity in percent, with 95 % intervals over texts and seeds. Below the \
                          dashed line is a gain."
                    .to_owned(),
                svg: self.chart().svg(),
                table,
            },
        ];
        for point in &self.points {
            blocks.push(Block::Heading {
                text: format!("{} {}", self.setting, point.value),
            });
            blocks.push(Block::Findings {
                findings: point.findings.clone(),
            });
            blocks.push(Block::Links {
                links: vec![Link {
                    path: format!("{}-{}/{PAGE_FILE}", self.setting, point.value),
                    text: format!("the comparison with {} {}", self.setting, point.value),
                }],
            });
        }
        blocks.push(Block::Heading {
            text: "Settings".to_owned(),
        });
        blocks.push(Block::Facts {
            rows: vec![["command".to_owned(), self.command.clone()]],
        });
        ReportPage {
            title: format!("{} by {}", self.method, self.setting),
            lead: format!(
                "One comparison for each {}, by the same rules; the figure shows what {} gains and how sure that is.",
                self.setting, self.method
            ),
            blocks,
        }
    }

    /// One line for each baseline.
    fn chart(&self) -> LineChart {
        let baselines = self.points.first().map_or(&[][..], |point| &point.gains);
        let series = baselines
            .iter()
            .enumerate()
            .map(|(idx, baseline)| Series {
                name: format!("vs {}", baseline.against),
                points: self
                    .points
                    .iter()
                    .map(|point| {
                        let change = point.gains[idx].difference.perplexity_change();
                        ChartPoint {
                            x: point.value as f64,
                            y: 100.0 * change.mean,
                            interval: Some([100.0 * change.low, 100.0 * change.high]),
                        }
                    })
                    .collect(),
            })
            .collect();
        LineChart {
            title: format!("Gain of {} by {}", self.method, self.setting),
            x_label: self.setting.to_owned(),
            y_label: "change of perplexity, %".to_owned(),
            x_scale: Scale::Logarithmic,
            series,
            reference: Some(0.0),
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
        for row in self.rows() {
            table.row(row);
        }
        page.table(&table);
        page.heading("files");
        for file in [PAGE_FILE, "sweep.json"] {
            page.line(self.out.join(file).display());
        }
    }
}
