//! A GGUF model in several files, as `llama-gguf-split` writes them: `NAME-00001-of-00003.gguf` and so on.

use std::path::Path;

use crate::error::ModelError;
use crate::files::file_bytes::FileBytes;
use crate::files::gguf::GgufFile;

/// The number of parts, in each of them.
const COUNT: &str = "split.count";
/// The index of a part, from 0 on.
const INDEX: &str = "split.no";
/// The number of tensors in all parts together.
const NUM_TENSORS: &str = "split.tensors.count";

/// Maps a file and reads its header; of a file that is one of several parts, all of them.
pub(super) fn open(path: &Path) -> Result<GgufFile, ModelError> {
    let file = GgufFile::parse(FileBytes::open(path)?)?;
    let num_parts = file.count(COUNT)?.unwrap_or(1);
    if num_parts <= 1 {
        return Ok(file);
    }
    let name = path.file_name().and_then(|name| name.to_str());
    let named = name.and_then(numbered);
    let Some((name, _)) = named.filter(|&(_, count)| count == num_parts) else {
        return Err(ModelError::GgufHeader {
            path: path.to_path_buf(),
            problem: format!(
                "it is one of {num_parts} parts of a model, but is not named as such, as in \
                 `NAME-00001-of-{num_parts:05}.gguf`"
            ),
        });
    };
    let open = |part_idx: usize| {
        let part =
            path.with_file_name(format!("{name}-{:05}-of-{num_parts:05}.gguf", part_idx + 1));
        if !part.exists() {
            return Err(ModelError::PartMissing {
                path: path.to_path_buf(),
                num_parts,
                missing: part,
            });
        }
        checked(
            GgufFile::parse(FileBytes::open(&part)?)?,
            part_idx,
            num_parts,
        )
    };
    let mut whole = open(0)?;
    for part_idx in 1..num_parts {
        whole.add_part(open(part_idx)?)?;
    }
    let found = whole.tensors().len();
    match whole.count(NUM_TENSORS)? {
        Some(expected) if expected != found => Err(ModelError::GgufHeader {
            path: whole.path().to_path_buf(),
            problem: format!("the {num_parts} parts have {found} tensors, expected {expected}"),
        }),
        _ => Ok(whole),
    }
}

/// A part, if it says that it is this one.
fn checked(part: GgufFile, part_idx: usize, num_parts: usize) -> Result<GgufFile, ModelError> {
    let found = [part.count(INDEX)?, part.count(COUNT)?];
    if found == [Some(part_idx), Some(num_parts)] {
        return Ok(part);
    }
    let text = |value: Option<usize>| value.map_or("nothing".to_owned(), |value| value.to_string());
    let problem = format!(
        "`{INDEX}` is {} and `{COUNT}` is {}, expected {part_idx} and {num_parts}",
        text(found[0]),
        text(found[1])
    );
    Err(ModelError::GgufHeader {
        path: part.path().to_path_buf(),
        problem,
    })
}

/// The names of all parts of a model of which a file is one by its name; that of the file alone if it is not.
pub(super) fn all_parts(file: &str) -> Vec<String> {
    match numbered(file) {
        Some((name, num_parts)) => (0..num_parts)
            .map(|part_idx| part_name(name, part_idx, num_parts))
            .collect(),
        None => vec![file.to_owned()],
    }
}

fn part_name(name: &str, part_idx: usize, num_parts: usize) -> String {
    format!("{name}-{:05}-of-{num_parts:05}.gguf", part_idx + 1)
}

/// What stands before the number of a part in its name, and the number of parts; `None` if the name is another.
fn numbered(file: &str) -> Option<(&str, usize)> {
    let number = |digits: &str| {
        let is_number = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .parse()
            .ok()
            .filter(|&number: &usize| is_number && number > 0)
    };
    let (name, num_parts) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (name, part) = name.rsplit_once('-')?;
    let num_parts = number(num_parts)?;
    (number(part)? <= num_parts).then_some((name, num_parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_part_ends_in_two_numbers() {
        assert_eq!(numbered("m-q4-00002-of-00003.gguf"), Some(("m-q4", 3)));
        for text in [
            "m.gguf",
            "m-00004-of-00003.gguf",
            "m-00000-of-00003.gguf",
            "m-2-of-00003.gguf",
            "m-0000x-of-00003.gguf",
            "00001-of-00003.gguf",
            "",
        ] {
            assert_eq!(numbered(text), None, "{text}");
            assert_eq!(all_parts(text), [text]);
        }
        let parts = ["a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf"];
        assert_eq!(all_parts(parts[1]), parts);
    }
}
