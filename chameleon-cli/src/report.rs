//! Reports: findings from scores, and one self-contained HTML page that shows them.
//!
//! Owns statistics, drawings and the page. Which methods are compared, and what a run is, is defined by the commands.

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
