//! WikiText line by line, as the hub's data set has it: blank lines are rows too.

use std::path::{Path, PathBuf};

use chameleon_core::RunSeed;

use crate::data::{self, DataError, ReadOptions};

/// The three parts of WikiText.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WikiText {
    /// Rows to train on.
    pub train: WikiTextRows,
    /// Rows to validate on.
    pub valid: WikiTextRows,
    /// Rows to test on.
    pub test: WikiTextRows,
}

/// Rows of one part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WikiTextRows {
    /// One line each with its line break, or nothing at all for a blank line.
    pub texts: Vec<String>,
    /// The article of each row.
    pub article_indices: Vec<usize>,
}

impl WikiText {
    /// Reads a folder with one file for each part, known by `train`, `valid` and `test` in their names.
    ///
    /// # Errors
    ///
    /// When a part is missing, or a file cannot be read or is not UTF-8.
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let part = |name| WikiTextRows::from_file(&part_file(folder, name)?);
        Ok(Self {
            train: part("train")?,
            valid: part("valid")?,
            test: part("test")?,
        })
    }
}

impl WikiTextRows {
    fn from_file(path: &Path) -> Result<Self, DataError> {
        let corpus = data::read(path, &ReadOptions::default())?;
        let lines = corpus
            .documents()
            .iter()
            .flat_map(|document| document.text.split_inclusive('\n'));
        Ok(Self::from_lines(lines))
    }

    fn from_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut rows = Self::default();
        let mut article_idx = 0;
        for line in lines {
            if is_title(line) && !rows.texts.is_empty() {
                article_idx += 1;
            }
            let is_blank = line.trim().is_empty();
            rows.texts.push(if is_blank {
                String::new()
            } else {
                line.to_owned()
            });
            rows.article_indices.push(article_idx);
        }
        rows
    }

    /// At most `max_rows` of the rows, drawn from the seed, in their order.
    #[must_use]
    pub fn limited(&self, max_rows: usize, seed: RunSeed) -> Self {
        let num_rows = self.texts.len();
        let mut rng = seed.stream("limit");
        let amount = max_rows.min(num_rows);
        let mut indices = rand::seq::index::sample(&mut rng, num_rows, amount).into_vec();
        indices.sort_unstable();
        self.select(&indices)
    }

    fn select(&self, indices: &[usize]) -> Self {
        Self {
            texts: indices.iter().map(|&idx| self.texts[idx].clone()).collect(),
            article_indices: indices
                .iter()
                .map(|&idx| self.article_indices[idx])
                .collect(),
        }
    }
}

/// ` = Title = ` begins an article, ` = = Section = = ` does not.
fn is_title(line: &str) -> bool {
    let line = line.trim();
    line.len() > 3 && line.starts_with("= ") && line.ends_with(" =") && !line.starts_with("= =")
}

/// The one file of a folder whose name says that it holds this part.
fn part_file(folder: &Path, part: &'static str) -> Result<PathBuf, DataError> {
    let failed = |source| DataError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.to_lowercase().contains(part) && path.is_file()
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(DataError::PartMissing {
            folder: folder.to_owned(),
            part,
        }),
        [first, second, ..] => Err(DataError::PartAmbiguous {
            part,
            first: first.clone(),
            second: second.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atomic_file;

    #[test]
    fn blank_lines_are_empty_rows_and_titles_begin_articles() {
        let text = " \n = One = \n \n text , with = signs = \n = = Section = = \n = Two = \nend";
        let rows = WikiTextRows::from_lines(text.split_inclusive('\n'));
        assert_eq!(rows.texts[0], "");
        assert_eq!(rows.texts[1], " = One = \n");
        assert_eq!(rows.texts.last().unwrap(), "end");
        assert_eq!(rows.article_indices, [0, 1, 1, 1, 1, 2, 2]);
        let some = rows.select(&[1, 6]);
        assert_eq!(some.texts, [" = One = \n", "end"]);
        assert_eq!(some.article_indices, [1, 2]);
        assert_eq!(rows.limited(9, RunSeed(1)), rows);
        assert_eq!(rows.limited(3, RunSeed(1)).texts.len(), 3);
    }

    #[test]
    fn a_part_that_is_missing_or_there_twice_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| atomic_file::write(&folder.path().join(name), b"text\n").unwrap();
        put("wiki.train.raw");
        put("wiki.valid.raw");
        let message = || {
            WikiText::from_folder(folder.path())
                .unwrap_err()
                .to_string()
        };
        assert!(message().contains("`test`"), "{}", message());
        put("test.txt");
        let parts = WikiText::from_folder(folder.path()).unwrap();
        assert_eq!(parts.valid.texts, ["text\n"]);
        put("old-test.txt");
        assert!(message().contains("old-test.txt"), "{}", message());
    }
}
