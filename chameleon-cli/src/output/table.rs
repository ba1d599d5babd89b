//! Small tables of text: aligned columns, numbers to the right.

use super::Style;

/// A column and where its cells stand.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    title: String,
    align: Align,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

impl Column {
    /// A column of words.
    pub(crate) fn text(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            align: Align::Left,
        }
    }

    /// A column of numbers.
    pub(crate) fn number(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            align: Align::Right,
        }
    }
}

/// Rows under named columns.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If the row has more or fewer cells than the table has columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().collect();
        assert_eq!(
            cells.len(),
            self.columns.len(),
            "a row has one cell for each column"
        );
        self.rows.push(cells);
    }

    /// The table as lines; the titles are left out if all are empty.
    pub(super) fn render(&self, style: Style) -> String {
        let titles: Vec<_> = self
            .columns
            .iter()
            .map(|column| column.title.clone())
            .collect();
        let widths: Vec<_> = (0..titles.len())
            .map(|idx| {
                let cells = self.rows.iter().map(|row| &row[idx]);
                cells
                    .chain([&titles[idx]])
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        if titles.iter().any(|title| !title.is_empty()) {
            text.push_str(&style.bold(&self.line(&titles, &widths)));
            text.push('\n');
        }
        for row in &self.rows {
            text.push_str(&self.line(row, &widths));
            text.push('\n');
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let padded: Vec<_> = self
            .columns
            .iter()
            .zip(cells)
            .zip(widths)
            .map(|((column, cell), &width)| match column.align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new([
            Column::text("kind"),
            Column::number("size"),
            Column::text("note"),
        ]);
        table.row(["prose".to_owned(), "7".to_owned(), "é".to_owned()]);
        table.row(["c".to_owned(), "1024".to_owned(), String::new()]);
        let expected = "kind   size  note\nprose     7  é\nc      1024\n";
        assert_eq!(table.render(Style::Plain), expected);
    }

    #[test]
    fn a_table_without_titles_has_no_head() {
        let mut table = Table::new([Column::text(""), Column::text("")]);
        table.row(["version".to_owned(), "1".to_owned()]);
        assert_eq!(table.render(Style::Plain), "version  1\n");
    }
}
