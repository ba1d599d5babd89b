//! Pieces that the pages of several commands share.

use chameleon_models::training::experiment::{Interval, percent, signed};

use super::{Block, HtmlTable, IntervalChart, IntervalRow};

/// Differences with their intervals, as a drawing and a table.
pub(crate) fn interval_figure(title: &str, caption: &str, rows: &[(String, Interval)]) -> Block {
    let mut table = HtmlTable::of_numbers(title, ["", "nats per token", "perplexity"]);
    for (name, interval) in rows {
        table.row([name.clone(), signed(*interval, 4), percent(*interval)]);
    }
    let chart = IntervalChart {
        title: title.to_owned(),
        x_label: "nats per token".to_owned(),
        rows: rows
            .iter()
            .map(|(name, interval)| IntervalRow {
                name: name.clone(),
                mean: interval.mean,
                low: interval.low,
                high: interval.high,
            })
            .collect(),
    };
    Block::Figure {
        title: title.to_owned(),
        caption: caption.to_owned(),
        svg: chart.svg(),
        table,
    }
}

/// `1.50 GiB`
pub(crate) fn gibibytes(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

/// As it would be typed: what a shell would take apart is quoted.
pub(crate) fn command_line(arguments: &[String]) -> String {
    let quoted = |argument: &String| {
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || "-_./=,:+@%".contains(character);
        if !argument.is_empty() && argument.chars().all(is_plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    let words: Vec<String> = arguments.iter().map(quoted).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["chameleon", "--data", "my texts", "it's", ""].map(str::to_owned);
        assert_eq!(
            command_line(&words),
            r"chameleon --data 'my texts' 'it'\''s' ''"
        );
    }
}
