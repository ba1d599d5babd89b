//! Reports: what scores allow one to say, and one self-contained HTML page that shows it.
//!
//! Owns statistics, drawings and the page; which methods are compared, and what a run is, are the commands' business.

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
