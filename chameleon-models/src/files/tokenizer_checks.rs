//! Checks of tokenizers before the `tokenizers` crate sees them.

use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;

/// Rejects the merges of a `tokenizer.json` that do not join two tokens into a third.
pub(crate) fn check_json_merges(path: &Path, model: &Value) -> Result<(), ModelError> {
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array())
    else {
        return Ok(());
    };
    let joiner = model["continuing_subword_prefix"].as_str().unwrap_or("");
    let merges = merges.iter().map(|merge| {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => {
                    Some((left.as_str(), right.as_str()))
                }
                _ => None,
            },
            _ => None,
        };
        (pair, merge)
    });
    check_merges(path, merges, joiner, |token| vocab.contains_key(token))
}

/// Rejects a merge that does not join two tokens into a third.
///
/// The `tokenizers` crate writes past the end of a buffer, and stops the program, when a merge makes a token that is
/// longer than any in the vocabulary. A merge comes with the text by which messages name it; `joiner` is what a token
/// begins with where it continues a word.
pub(crate) fn check_merges<'a>(
    path: &Path,
    merges: impl Iterator<Item = (Option<(&'a str, &'a str)>, impl ToString)>,
    joiner: &str,
    has_token: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    for (index, (pair, merge)) in merges.enumerate() {
        let joins = pair.is_some_and(|(left, right)| {
            right.strip_prefix(joiner).is_some_and(|rest| {
                has_token(left) && has_token(right) && has_token(&format!("{left}{rest}"))
            })
        });
        if !joins {
            return Err(ModelError::BrokenMerge {
                path: path.to_path_buf(),
                index,
                merge: merge.to_string(),
            });
        }
    }
    Ok(())
}

/// The error of a part that the `tokenizers` crate does not take.
pub(crate) fn broken(path: &Path, source: Box<dyn std::error::Error + Send + Sync>) -> ModelError {
    ModelError::Tokenizer {
        path: path.to_path_buf(),
        source,
    }
}
