//! Lines with intervals, intervals around zero, and points in a plane.

use super::svg::{Anchor, Mark, NUM_COLORS, Svg, color};

/// How values lie along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Equal ratios are equal distances; for values above zero.
    Logarithmic,
}

/// Between intervals of two series at one position.
const DODGE: f64 = 7.0;

/// A value at a position, with an interval if there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ChartPoint {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) interval: Option<[f64; 2]>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<ChartPoint>,
}

/// Lines over positions that are all marked on the axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LineChart {
    pub(crate) title: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) x_scale: Scale,
    pub(crate) series: Vec<Series>,
    /// A horizontal line to compare with.
    pub(crate) reference: Option<f64>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 48.0;
/// Room for the names of lines: at least, and at most.
const LEGEND: [f64; 2] = [150.0, 280.0];
/// A letter of a name, and what stands beside it.
const LETTER: f64 = 8.0;
/// What is longer is cut.
const MOST_LETTERS: usize = 29;
const BESIDE_NAME: f64 = 44.0;

impl LineChart {
    /// How far a series is moved aside, so that no interval hides another; lines without intervals stay.
    fn dodge(&self, series_idx: usize) -> f64 {
        let mut points = self.series.iter().flat_map(|series| &series.points);
        if points.all(|point| point.interval.is_none()) {
            return 0.0;
        }
        DODGE * (series_idx as f64 - (self.series.len() - 1) as f64 / 2.0)
    }

    /// Where the lines end and their names begin.
    fn right(&self) -> f64 {
        let letters = self.series.iter().map(|series| series.name.chars().count());
        let longest = letters.max().unwrap_or(0) as f64;
        WIDTH - (LETTER * longest + BESIDE_NAME).clamp(LEGEND[0], LEGEND[1])
    }

    pub(crate) fn svg(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT);
        let right = self.right();
        let points = || self.series.iter().flat_map(|series| &series.points);
        let scaled = |x: f64| match self.x_scale {
            Scale::Linear => x,
            Scale::Logarithmic => x.ln(),
        };
        let x = Range::of(points().map(|point| scaled(point.x)))
            .wider(0.04)
            .to(LEFT, right);
        let y = Range::of(
            points()
                .flat_map(|point| {
                    [point.y]
                        .into_iter()
                        .chain(point.interval.into_iter().flatten())
                })
                .chain(self.reference),
        )
        .wider(0.06)
        .to(HEIGHT - BOTTOM, TOP);
        for tick in ticks(y.range, 5) {
            let at = y.at(tick);
            svg.line("grid", [LEFT, at], [right, at]);
            let label = format_tick(tick, y.range);
            svg.text("tick", [LEFT - 8.0, at + 4.0], Anchor::End, &label);
        }
        let mut positions: Vec<f64> = points().map(|point| point.x).collect();
        positions.sort_by(f64::total_cmp);
        positions.dedup();
        let every = positions.len().div_ceil(12).max(1);
        for position in positions.into_iter().step_by(every) {
            let at = x.at(scaled(position));
            svg.line("axis", [at, HEIGHT - BOTTOM], [at, HEIGHT - BOTTOM + 5.0]);
            let below = [at, HEIGHT - BOTTOM + 19.0];
            svg.text("tick", below, Anchor::Middle, &position.to_string());
        }
        svg.line("axis", [LEFT, HEIGHT - BOTTOM], [right, HEIGHT - BOTTOM]);
        if let Some(reference) = self.reference {
            let at = y.at(reference);
            svg.line("reference", [LEFT, at], [right, at]);
        }
        let middle = f64::midpoint(LEFT, right);
        svg.text(
            "label",
            [middle, HEIGHT - 8.0],
            Anchor::Middle,
            &self.x_label,
        );
        svg.upright_text(
            "label",
            [16.0, (TOP + HEIGHT - BOTTOM) / 2.0],
            &self.y_label,
        );
        for (idx, series) in self.series.iter().enumerate() {
            // Colours go round: what has the same one again is dashed and has another mark.
            let class = match idx / NUM_COLORS {
                0 => color(idx),
                _ => format!("{} dashed", color(idx)),
            };
            let line: Vec<[f64; 2]> = series
                .points
                .iter()
                .map(|point| [x.at(scaled(point.x)) + self.dodge(idx), y.at(point.y)])
                .collect();
            svg.polyline(&format!("line {class}"), &line);
            for (point, &at) in series.points.iter().zip(&line) {
                if let Some([low, high]) = point.interval {
                    svg.line(
                        &format!("whisker {class}"),
                        [at[0], y.at(low)],
                        [at[0], y.at(high)],
                    );
                }
                let title = format!("{}: {} at {}", series.name, format_value(point.y), point.x);
                svg.mark(&format!("dot {class}"), Mark::of(idx), at, 4.0, &title);
            }
            let row = TOP + 10.0 + 20.0 * idx as f64;
            let start = right + 14.0;
            svg.line(&format!("line {class}"), [start, row], [start + 20.0, row]);
            svg.mark(
                &format!("dot {class}"),
                Mark::of(idx),
                [start + 10.0, row],
                4.0,
                &series.name,
            );
            let name = shortened(&series.name, MOST_LETTERS);
            svg.text("tick", [start + 26.0, row + 4.0], Anchor::Start, &name);
        }
        svg.finish(&self.title)
    }
}

/// A named interval.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IntervalRow {
    pub(crate) name: String,
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Intervals below each other, with a line at zero. Below zero is good.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IntervalChart {
    pub(crate) title: String,
    pub(crate) x_label: String,
    pub(crate) rows: Vec<IntervalRow>,
}

impl IntervalChart {
    pub(crate) fn svg(&self) -> String {
        let names = self.rows.iter().map(|row| row.name.chars().count());
        let left = (8.0 * names.max().unwrap_or(0) as f64 + 24.0).clamp(90.0, 240.0);
        let bottom = TOP + 26.0 * self.rows.len() as f64 + 6.0;
        let mut svg = Svg::new(WIDTH, bottom + BOTTOM);
        let ends = self.rows.iter().flat_map(|row| [row.low, row.high]);
        let x = Range::of(ends.chain([0.0]))
            .wider(0.05)
            .to(left, WIDTH - 20.0);
        for tick in ticks(x.range, 6) {
            let at = x.at(tick);
            svg.line("grid", [at, TOP], [at, bottom]);
            let label = format_tick(tick, x.range);
            svg.text("tick", [at, bottom + 18.0], Anchor::Middle, &label);
        }
        svg.line("reference", [x.at(0.0), TOP], [x.at(0.0), bottom]);
        for (idx, row) in self.rows.iter().enumerate() {
            let at = TOP + 26.0 * idx as f64 + 16.0;
            let class = match (row.high < 0.0, row.low > 0.0) {
                (true, _) => "good",
                (_, true) => "bad",
                _ => "open",
            };
            let name = shortened(&row.name, 26);
            svg.text("tick", [left - 12.0, at + 4.0], Anchor::End, &name);
            svg.line(
                &format!("whisker {class}"),
                [x.at(row.low), at],
                [x.at(row.high), at],
            );
            let mark = match class {
                "good" => Mark::Disc,
                "bad" => Mark::Triangle,
                _ => Mark::Square,
            };
            let title = format!(
                "{}: {} [{}, {}]",
                row.name,
                format_value(row.mean),
                format_value(row.low),
                format_value(row.high)
            );
            svg.mark(
                &format!("dot {class}"),
                mark,
                [x.at(row.mean), at],
                5.0,
                &title,
            );
        }
        let middle = f64::midpoint(left, WIDTH - 20.0);
        svg.text(
            "label",
            [middle, bottom + 40.0],
            Anchor::Middle,
            &self.x_label,
        );
        svg.finish(&self.title)
    }
}

/// A point in a plane.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MapPoint {
    pub(crate) at: [f64; 2],
    pub(crate) kind_idx: usize,
    /// Shown when it is pointed at.
    pub(crate) title: String,
}

/// Points of several kinds, and a place for each kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MapChart {
    pub(crate) title: String,
    pub(crate) points: Vec<MapPoint>,
    /// The names of these are the numbers of their kinds.
    pub(crate) centers: Vec<[f64; 2]>,
}

impl MapChart {
    pub(crate) fn svg(&self) -> String {
        const SIDE: f64 = 520.0;
        let mut svg = Svg::new(WIDTH, SIDE);
        let all = || {
            let points = self.points.iter().map(|point| point.at);
            points.chain(self.centers.iter().copied())
        };
        let x = Range::of(all().map(|at| at[0]))
            .wider(0.04)
            .to(12.0, WIDTH - 12.0);
        let y = Range::of(all().map(|at| at[1]))
            .wider(0.04)
            .to(SIDE - 12.0, 12.0);
        for point in &self.points {
            let at = [x.at(point.at[0]), y.at(point.at[1])];
            let class = format!("point {}", color(point.kind_idx));
            svg.mark(&class, Mark::of(point.kind_idx), at, 3.5, &point.title);
        }
        for (kind_idx, center) in self.centers.iter().enumerate() {
            let at = [x.at(center[0]), y.at(center[1])];
            let class = format!("center {}", color(kind_idx));
            svg.mark(
                &class,
                Mark::of(kind_idx),
                at,
                11.0,
                &format!("group {kind_idx}"),
            );
            let below = [at[0], at[1] + 4.5];
            svg.text("center-name", below, Anchor::Middle, &kind_idx.to_string());
        }
        svg.finish(&self.title)
    }
}

/// From here to there, never empty.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    low: f64,
    high: f64,
}

/// Values to positions in a drawing.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    range: Range,
    from: f64,
    to: f64,
}

impl Range {
    /// What holds all finite values.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            return Self {
                low: 0.0,
                high: 1.0,
            };
        }
        let margin = if high > low {
            0.0
        } else {
            (low.abs() * 0.01).max(1e-3)
        };
        Self {
            low: low - margin,
            high: high + margin,
        }
    }

    fn wider(self, share: f64) -> Self {
        let margin = (self.high - self.low) * share;
        Self {
            low: self.low - margin,
            high: self.high + margin,
        }
    }

    fn to(self, from: f64, to: f64) -> Mapping {
        Mapping {
            range: self,
            from,
            to,
        }
    }
}

impl Mapping {
    fn at(self, value: f64) -> f64 {
        let Range { low, high } = self.range;
        self.from + (value - low) / (high - low) * (self.to - self.from)
    }
}

/// Round values inside a range, about `count` of them.
fn ticks(range: Range, count: usize) -> Vec<f64> {
    let step = tick_step(range, count);
    let first = (range.low / step).ceil();
    let last = (range.high / step).floor();
    let mut ticks = Vec::new();
    let mut tick = first;
    while tick <= last && ticks.len() < 3 * count {
        // Multiplied, because a sum drifts (0.30000000000000004); `+ 0.0` avoids the label `-0`.
        ticks.push(tick * step + 0.0);
        tick += 1.0;
    }
    ticks
}

fn tick_step(range: Range, count: usize) -> f64 {
    let rough = (range.high - range.low) / count as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * power >= rough)
        .unwrap_or(10.0);
    step * power
}

/// As many digits as tell the ticks apart.
fn format_tick(tick: f64, range: Range) -> String {
    let digits = -tick_step(range, 6).log10().floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a few digits"
    )]
    let digits = digits.clamp(0.0, 9.0) as usize;
    format!("{tick:.digits$}")
}

fn format_value(value: f64) -> String {
    format!("{value:.4}")
}

fn shortened(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let start: String = text.chars().take(max_chars - 1).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let range = Range {
            low: -0.013,
            high: 0.047,
        };
        let labels: Vec<String> = ticks(range, 5)
            .into_iter()
            .map(|tick| format_tick(tick, range))
            .collect();
        assert_eq!(labels, ["0.00", "0.02", "0.04"]);
    }

    #[test]
    fn long_names_of_lines_have_room_and_endless_ones_are_cut() {
        let chart = |name: &str| LineChart {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            x_scale: Scale::Linear,
            series: vec![Series {
                name: name.to_owned(),
                points: vec![],
            }],
            reference: None,
        };
        let room = |name: &str| WIDTH - chart(name).right();
        assert!((room("core") - LEGEND[0]).abs() < 1e-9);
        assert!(room("vs core-memory-redrawn") > 7.5 * 22.0 + BESIDE_NAME - 4.0);
        let endless = "name ".repeat(40);
        assert!((room(&endless) - LEGEND[1]).abs() < 1e-9);
        assert!(
            !chart(&endless)
                .svg()
                .contains(&format!(">{endless}</text>"))
        );
        assert!(LETTER * MOST_LETTERS as f64 + BESIDE_NAME <= LEGEND[1]);
    }

    #[test]
    fn charts_of_nothing_and_of_odd_numbers_are_drawn() {
        let point = |y| ChartPoint {
            x: 1.0,
            y,
            interval: Some([y, y]),
        };
        for points in [
            vec![],
            vec![point(2.0)],
            vec![point(f64::NAN), point(1e300)],
        ] {
            let chart = LineChart {
                title: "t".to_owned(),
                x_label: String::new(),
                y_label: String::new(),
                x_scale: Scale::Logarithmic,
                series: vec![Series {
                    name: "core".to_owned(),
                    points,
                }],
                reference: None,
            };
            assert!(chart.svg().ends_with("</svg>"));
        }
        let empty = IntervalChart {
            title: "t".to_owned(),
            x_label: String::new(),
            rows: Vec::new(),
        };
        assert!(empty.svg().ends_with("</svg>"));
        let map = MapChart {
            title: "t".to_owned(),
            points: Vec::new(),
            centers: vec![[0.0, 0.0]],
        };
        assert!(map.svg().contains("group 0"));
    }

    #[test]
    fn the_look_of_an_interval_tells_on_which_side_of_zero_it_lies() {
        let row = |name: &str, low, high| IntervalRow {
            name: name.to_owned(),
            mean: f64::midpoint(low, high),
            low,
            high,
        };
        let drawing = IntervalChart {
            title: "gain".to_owned(),
            x_label: "nats".to_owned(),
            rows: vec![
                row("a", -2.0, -1.0),
                row("b", -1.0, 1.0),
                row("c", 1.0, 2.0),
            ],
        }
        .svg();
        let at = |class: &str| drawing.find(class).unwrap();
        assert!(at("whisker good") < at("whisker open") && at("whisker open") < at("whisker bad"));
    }
}
