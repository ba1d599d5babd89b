//! Reports: statistics of scores, and one self-contained HTML page that shows them.
//!
//! Owns statistics, charts and the page; the commands define which methods are compared and what a run is.

mod chart;
mod page;
mod parts;
mod samples;
mod svg;

pub(crate) use chart::{
    ChartPoint, IntervalChart, IntervalRow, LineChart, MapChart, MapPoint, Scale, Series,
};
pub(crate) use page::{Block, HtmlTable, Link, ReportPage};
pub(crate) use parts::{command_line, gibibytes, interval_figure};
pub(crate) use samples::{extremes, sample};
