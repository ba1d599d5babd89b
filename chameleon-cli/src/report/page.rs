//! One self-contained HTML page: tables, figures and samples, readable in light and dark, without a network.
//!
//! The template escapes every text it is given. Drawings alone are put in as they are; [`svg`](super::svg) has
//! escaped what is in them.

use minijinja::{Environment, context, value::Serde};
use serde::Serialize;

use chameleon_models::training::experiment::Finding;

use super::samples::Sample;

/// A page: a title and its blocks.
#[derive(Debug, Serialize)]
pub(crate) struct ReportPage {
    pub(crate) title: String,
    /// One sentence below the title.
    pub(crate) lead: String,
    pub(crate) blocks: Vec<Block>,
}

/// A part of a page.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Block {
    /// A new section.
    Heading { text: String },
    /// Findings.
    Findings { findings: Vec<Finding> },
    /// A table that is always open.
    Table { table: HtmlTable },
    /// A chart, with its values in a table for screen readers.
    Figure {
        title: String,
        caption: String,
        /// Markup that is safe already.
        svg: String,
        table: HtmlTable,
    },
    /// Texts with coloured tokens.
    Samples { title: String, samples: Vec<Sample> },
    /// Names and values.
    Facts { rows: Vec<[String; 2]> },
    /// Other pages.
    Links { links: Vec<Link> },
}

/// Rows under named columns.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct HtmlTable {
    pub(crate) caption: String,
    pub(crate) columns: Vec<HtmlColumn>,
    pub(crate) rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct HtmlColumn {
    pub(crate) title: String,
    pub(crate) is_number: bool,
}

/// Where to find more.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Link {
    /// Relative to the page.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl HtmlTable {
    /// A table without rows; columns after the first hold numbers.
    pub(crate) fn of_numbers(
        caption: &str,
        columns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            caption: caption.to_owned(),
            columns: columns
                .into_iter()
                .enumerate()
                .map(|(idx, title)| HtmlColumn {
                    title: title.into(),
                    is_number: idx > 0,
                })
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Turns a column into one of words.
    #[must_use]
    pub(crate) fn with_words(mut self, column_idx: usize) -> Self {
        self.columns[column_idx].is_number = false;
        self
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl ReportPage {
    /// The page as HTML.
    pub(crate) fn html(&self) -> String {
        let mut environment = Environment::new();
        // The ending of the name turns escaping on.
        environment
            .add_template("page.html", include_str!("page.html"))
            .expect("the template of this program is well formed");
        environment
            .get_template("page.html")
            .and_then(|template| template.render(context! { page => Serde(self) }))
            .expect("the template shows every page")
    }
}

#[cfg(test)]
mod tests {
    use chameleon_models::training::experiment::FindingKind;

    use super::super::samples::TokenGain;
    use super::*;

    const HOSTILE: &str = "<script>alert(\"x\")</script> & '</pre>";

    fn page() -> ReportPage {
        let text = || HOSTILE.to_owned();
        let mut table = HtmlTable::of_numbers(HOSTILE, ["a", HOSTILE]).with_words(1);
        table.row([text(), "1".to_owned()]);
        ReportPage {
            title: text(),
            lead: text(),
            blocks: vec![
                Block::Heading { text: text() },
                Block::Findings {
                    findings: vec![Finding {
                        kind: FindingKind::Warning,
                        text: text(),
                    }],
                },
                Block::Table {
                    table: table.clone(),
                },
                Block::Figure {
                    title: text(),
                    caption: text(),
                    svg: "<svg></svg>".to_owned(),
                    table,
                },
                Block::Samples {
                    title: text(),
                    samples: vec![Sample {
                        title: text(),
                        prompt: text(),
                        tokens: vec![TokenGain::new(text(), 0.3)],
                    }],
                },
                Block::Facts {
                    rows: vec![[text(), text()]],
                },
                Block::Links {
                    links: vec![Link {
                        path: "x.html".to_owned(),
                        text: text(),
                    }],
                },
            ],
        }
    }

    #[test]
    fn hostile_text_is_shown_and_never_run() {
        let html = page().html();
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;").count(), 22);
        assert!(
            html.contains("<svg></svg>"),
            "drawings are not escaped twice"
        );
    }

    #[test]
    fn a_page_needs_nothing_from_outside() {
        let html = page().html();
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.starts_with("<!doctype html>") && html.contains("lang=\"en\""));
    }
}
