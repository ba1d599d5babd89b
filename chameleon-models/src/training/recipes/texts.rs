//! The rows of the paper's two data sets: WikiText line by line, blank lines included, and Alpaca's exchanges.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chameleon_core::RunSeed;
use serde_json::Value;

use crate::data::{
    self, DataError, Document, Example, Exchange, Format, InstructionCondition, InstructionFields,
    LabelField, Origin, ReadOptions, SplitFractions, TextFields, Tokenise, WindowOptions,
};

/// The rows of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaperTexts {
    /// Rows to train on.
    pub train: PaperRows,
    /// Rows to validate on.
    pub valid: PaperRows,
    /// Rows to test on.
    pub test: PaperRows,
}

/// Some rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PaperRows {
    /// Texts; of WikiText one line each with its line break, empty for a blank line.
    pub texts: Vec<String>,
    /// The range of each row's answer, in data of exchanges.
    pub exchanges: Vec<Option<Exchange>>,
    /// The document of each row: an article of WikiText, or the row itself.
    pub document_indices: Vec<usize>,
}

impl PaperTexts {
    /// WikiText from a folder with one file for each split, identified by `train`, `valid` or `test` in its name: plain
    /// text, or a table of rows with a `text`.
    ///
    /// # Errors
    ///
    /// When a split is missing, or a file cannot be read or is not UTF-8.
    pub fn wikitext(folder: &Path) -> Result<Self, DataError> {
        let part = |name| PaperRows::of_wikitext(&part_file(folder, name)?);
        Ok(Self {
            train: part("train")?,
            valid: part("valid")?,
            test: part("test")?,
        })
    }

    /// Alpaca from one file of records with `instruction`, `input` and `output`, with a tenth of the rows held out for
    /// validation and a tenth for testing. Rows without an answer are left out.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a record lacks a field.
    pub fn alpaca(
        path: &Path,
        condition: InstructionCondition,
        seed: RunSeed,
    ) -> Result<Self, DataError> {
        let options = ReadOptions {
            text_fields: TextFields::Instruction(InstructionFields::default()),
            instruction_condition: condition,
            label_field: LabelField::Ignored,
            ..ReadOptions::default()
        };
        let documents = data::read_documents(path, &options, None)?.documents;
        let split = data::split(&documents, SplitFractions::new(0.1, 0.1)?, seed);
        let rows = PaperRows {
            document_indices: (0..documents.len()).collect(),
            exchanges: documents
                .iter()
                .map(|document| document.exchange.clone())
                .collect(),
            texts: documents
                .into_iter()
                .map(|document| document.text)
                .collect(),
        };
        Ok(Self {
            train: rows.select(&split.train),
            valid: rows.select(&split.valid),
            test: rows.select(&split.test),
        })
    }
}

impl PaperRows {
    fn of_wikitext(path: &Path) -> Result<Self, DataError> {
        let options = ReadOptions::default();
        if Format::of(path)? == Format::Text {
            let found = data::read_documents(path, &options, None)?;
            let lines = found
                .documents
                .iter()
                .flat_map(|document| document.text.split_inclusive('\n'));
            return Ok(Self::of_lines(lines));
        }
        let mut lines = Vec::new();
        data::visit_records(path, &["text"], &options, &mut |record| {
            match record.fields.get("text") {
                Some(Value::String(line)) => lines.push(line.clone()),
                _ => {
                    return Err(DataError::FieldMissing {
                        field: "text".to_owned(),
                        found: record.field_names(),
                        origin: record.origin,
                    });
                }
            }
            Ok(())
        })?;
        Ok(Self::of_lines(lines.iter().map(String::as_str)))
    }

    fn of_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
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
            rows.exchanges.push(None);
            rows.document_indices.push(article_idx);
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
            exchanges: indices
                .iter()
                .map(|&idx| self.exchanges[idx].clone())
                .collect(),
            document_indices: indices
                .iter()
                .map(|&idx| self.document_indices[idx])
                .collect(),
        }
    }

    /// The examples of the rows that are long enough; the `document_idx` of each is the index of its row.
    ///
    /// # Errors
    ///
    /// When no row is long enough, or the tokenizer refuses one.
    pub fn examples(
        &self,
        windows: WindowOptions,
        seed: RunSeed,
        tokenise: &Tokenise<'_>,
    ) -> Result<Vec<Example>, DataError> {
        let path: Arc<Path> = Path::new("the rows of the experiment").into();
        // Blank documents would be left out, which would shift the indices of the later rows.
        let filled: Vec<usize> = (0..self.texts.len())
            .filter(|&row_idx| !self.texts[row_idx].trim().is_empty())
            .collect();
        let documents = filled.iter().map(|&row_idx| Document {
            exchange: self.exchanges[row_idx].clone(),
            ..Document::prose(
                self.texts[row_idx].clone(),
                Origin::new(Arc::clone(&path), row_idx + 1),
            )
        });
        let corpus = data::tokenise_documents(documents, windows, seed, tokenise)?;
        let mut examples = corpus.examples(&corpus.all_documents())?.examples;
        for example in &mut examples {
            example.document_idx = filled[example.document_idx];
        }
        Ok(examples)
    }
}

/// ` = Title = ` begins an article, ` = = Section = = ` does not.
fn is_title(line: &str) -> bool {
    let line = line.trim();
    line.len() > 3 && line.starts_with("= ") && line.ends_with(" =") && !line.starts_with("= =")
}

/// The one file of a folder whose name contains the name of this split.
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
    use crate::data::TokenisedText;
    use crate::files::atomic_file;

    #[test]
    fn blank_lines_are_empty_rows_and_titles_begin_articles() {
        let text = " \n = One = \n \n text , with = signs = \n = = Section = = \n = Two = \nend";
        let rows = PaperRows::of_lines(text.split_inclusive('\n'));
        assert_eq!(rows.texts[0], "");
        assert_eq!(rows.texts[1], " = One = \n");
        assert_eq!(rows.texts.last().unwrap(), "end");
        assert_eq!(rows.document_indices, [0, 1, 1, 1, 1, 2, 2]);
        let some = rows.select(&[1, 6]);
        assert_eq!(some.texts, [" = One = \n", "end"]);
        assert_eq!(some.document_indices, [1, 2]);
        assert_eq!(rows.limited(9, RunSeed(1)), rows);
        assert_eq!(rows.limited(3, RunSeed(1)).texts.len(), 3);
    }

    #[test]
    fn a_table_of_lines_is_read_like_the_lines() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            atomic_file::write(&folder.path().join(name), text.as_bytes()).unwrap();
        };
        put("train.txt", " \n = One = \n text \n");
        put(
            "valid.jsonl",
            "{\"text\": \"\"}\n{\"text\": \" = One = \\n\"}\n{\"text\": \" text \\n\"}\n",
        );
        put("test.jsonl", "{\"line\": \"x\"}\n");
        let error = PaperTexts::wikitext(folder.path()).unwrap_err();
        assert!(error.to_string().contains("no field `text`"), "{error}");
        put("test.jsonl", "{\"text\": \"x\"}\n");
        let parts = PaperTexts::wikitext(folder.path()).unwrap();
        assert_eq!(parts.train, parts.valid);
    }

    #[test]
    fn alpaca_is_split_by_row_and_keeps_its_answers_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alpaca.jsonl");
        let rows: Vec<String> = (0..40)
            .map(|idx| {
                format!(
                    "{{\"instruction\": \"say {idx}\", \"input\": \"\", \"output\": \"{idx}!\"}}\n"
                )
            })
            .chain(["{\"instruction\": \"say nothing\", \"output\": \"\"}\n".to_owned()])
            .collect();
        atomic_file::write(&path, rows.concat().as_bytes()).unwrap();
        let condition = InstructionCondition::Task;
        let texts = PaperTexts::alpaca(&path, condition, RunSeed(1)).unwrap();
        let sizes = [&texts.train, &texts.valid, &texts.test].map(|part| part.texts.len());
        assert_eq!(sizes.iter().sum::<usize>(), 40);
        assert!(sizes.iter().all(|&size| size > 0), "{sizes:?}");
        for (text, exchange) in texts.train.texts.iter().zip(&texts.train.exchanges) {
            let exchange = exchange.as_ref().unwrap();
            assert!(text[exchange.answer_start..].ends_with('!'));
            assert!(text[exchange.condition.clone()].starts_with("say "));
        }
        let bytes = |text: &str| {
            let num_bytes = text.len();
            Ok(TokenisedText::new(
                vec![0; num_bytes],
                (1..=num_bytes).collect(),
            ))
        };
        let windows = WindowOptions::new(400, 8).unwrap();
        let examples = texts.valid.examples(windows, RunSeed(1), &bytes).unwrap();
        let rows: Vec<usize> = examples
            .iter()
            .map(|example| example.document_idx)
            .collect();
        assert_eq!(rows, (0..texts.valid.texts.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_part_that_is_missing_or_there_twice_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| atomic_file::write(&folder.path().join(name), b"text\n").unwrap();
        put("wiki.train.raw");
        put("wiki.valid.raw");
        let message = || PaperTexts::wikitext(folder.path()).unwrap_err().to_string();
        assert!(message().contains("`test`"), "{}", message());
        put("test.txt");
        let parts = PaperTexts::wikitext(folder.path()).unwrap();
        assert_eq!(parts.valid.texts, ["text\n"]);
        put("old-test.txt");
        assert!(message().contains("old-test.txt"), "{}", message());
    }
}
