//! Scalable drawings as text: few shapes, everything escaped, colours by class so that a page can be light or dark.

use std::fmt::{Display, Write as _};

/// A drawing under construction.
#[derive(Debug)]
pub(super) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

/// Where a text stands relative to its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A mark for a point. The shape distinguishes points of the same colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Disc,
    Square,
    Triangle,
}

impl Mark {
    /// Marks for as many kinds as one likes: colours go round first, then shapes.
    pub(super) fn of(kind_idx: usize) -> Self {
        match kind_idx / NUM_COLORS % 3 {
            0 => Self::Disc,
            1 => Self::Square,
            _ => Self::Triangle,
        }
    }
}

/// Colours of the style sheet, `c0` and on.
pub(super) const NUM_COLORS: usize = 8;

/// The class of a kind.
pub(super) fn color(kind_idx: usize) -> String {
    format!("c{}", kind_idx % NUM_COLORS)
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self {
            body: String::new(),
            width,
            height,
        }
    }

    /// The finished drawing; `title` is what is read aloud.
    pub(super) fn finish(self, title: &str) -> String {
        let Self {
            body,
            width,
            height,
        } = self;
        let title = escape(title);
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\
             <title>{title}</title>{body}</svg>"
        )
    }

    pub(super) fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        self.push(format_args!(
            "<line class=\"{}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>",
            escape(class)
        ));
    }

    pub(super) fn polyline(&mut self, class: &str, points: &[[f64; 2]]) {
        let points: Vec<String> = points
            .iter()
            .map(|[x, y]| format!("{x:.1},{y:.1}"))
            .collect();
        self.push(format_args!(
            "<polyline class=\"{}\" points=\"{}\"/>",
            escape(class),
            points.join(" ")
        ));
    }

    /// A point with a text that is shown when it is pointed at.
    pub(super) fn mark(
        &mut self,
        class: &str,
        mark: Mark,
        [x, y]: [f64; 2],
        size: f64,
        title: &str,
    ) {
        let class = escape(class);
        let title = escape(title);
        let shape = match mark {
            Mark::Disc => {
                format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\">")
            }
            Mark::Square => format!(
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{side}\" height=\"{side}\">",
                x - size,
                y - size,
                side = 2.0 * size
            ),
            Mark::Triangle => format!(
                "<polygon class=\"{class}\" points=\"{x:.1},{:.1} {:.1},{:.1} {:.1},{:.1}\">",
                y - 1.2 * size,
                x - 1.1 * size,
                y + 0.9 * size,
                x + 1.1 * size,
                y + 0.9 * size
            ),
        };
        let end = match mark {
            Mark::Disc => "</circle>",
            Mark::Square => "</rect>",
            Mark::Triangle => "</polygon>",
        };
        self.push(format_args!("{shape}<title>{title}</title>{end}"));
    }

    pub(super) fn text(&mut self, class: &str, [x, y]: [f64; 2], anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(class),
            escape(text)
        ));
    }

    /// A text that reads from the bottom to the top.
    pub(super) fn upright_text(&mut self, class: &str, [x, y]: [f64; 2], text: &str) {
        self.push(format_args!(
            "<text class=\"{}\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            escape(class),
            escape(text)
        ));
    }

    fn push(&mut self, shape: impl Display) {
        write!(self.body, "{shape}").expect("a string takes any text");
    }
}

/// Text that is safe between tags and in quoted attributes. Control characters, which XML does not know, are left out.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        let mut svg = Svg::new(10.0, 10.0);
        let hostile = "</title><script>alert('1')</script>\"\u{0}";
        svg.text("label", [0.0, 0.0], Anchor::Start, hostile);
        svg.mark("c0", Mark::Disc, [1.0, 1.0], 2.0, hostile);
        let drawing = svg.finish(hostile);
        assert!(!drawing.contains("<script"), "{drawing}");
        assert!(!drawing.contains('\u{0}'));
        assert!(drawing.contains("&lt;script&gt;alert(&#39;1&#39;)"));
    }

    #[test]
    fn kinds_differ_by_color_and_then_by_shape() {
        let look = |idx| (color(idx), Mark::of(idx));
        let looks: Vec<_> = (0..3 * NUM_COLORS).map(look).collect();
        for (idx, look) in looks.iter().enumerate() {
            assert!(!looks[..idx].contains(look), "{idx}");
        }
    }
}
