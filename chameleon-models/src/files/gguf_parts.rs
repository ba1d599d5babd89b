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
    let Some(name) = name_before_number(path, num_parts) else {
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

/// What stands before the number of a part in its name; `None` if the name is another.
fn name_before_number(path: &Path, num_parts: usize) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let numbered = name.strip_suffix(&format!("-of-{num_parts:05}.gguf"))?;
    let (name, number) = numbered.rsplit_once('-')?;
    let is_number = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_part_ends_in_two_numbers() {
        let name = |text: &str| name_before_number(Path::new(text), 3);
        assert_eq!(name("a/m-q4-00002-of-00003.gguf"), Some("m-q4".to_owned()));
        for text in [
            "m.gguf",
            "m-00002-of-00004.gguf",
            "m-2-of-00003.gguf",
            "m-0000x-of-00003.gguf",
            "00001-of-00003.gguf",
            "",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
