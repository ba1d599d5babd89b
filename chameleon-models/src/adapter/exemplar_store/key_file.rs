//! The file of one key: its name, its bytes, and the checks when it is read.
//!
//! ```text
//! {"format_version":1,"key":"..","next_id":2,"exemplars":[{"id":0,"prompt":"..","answer":".."},..],"sha256":".."}
//! ```
//!
//! `sha256` is the SHA-256 of the same compact object without this field, written as hexadecimal digits: of the bytes
//! that `serde_json` writes for the other four fields in this order.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::{ExemplarStoreError, ImpossibleExemplars, InvalidKey};
use super::exemplars::Exemplar;
use crate::files::atomic_file;
use crate::files::fingerprint::hexadecimal;

/// The version of the file's format.
const FORMAT_VERSION: u32 = 1;

/// The largest file that is read or written, whatever the limits of the store are.
pub(super) const MAX_FILE_BYTES: u64 = 16 << 20;

/// The largest id of a next exemplar: integers up to here are exact in every JSON parser.
pub(super) const MAX_NEXT_ID: u64 = 1 << 53;

const EXTENSION: &str = ".json";

/// Hexadecimal digits in the name of a file.
const NUM_DIGITS: usize = 32;

/// What the file of a key contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyContents {
    pub(super) key: String,
    pub(super) next_id: u64,
    pub(super) exemplars: Vec<Exemplar>,
}

/// The fields of a file that the checksum is computed from.
#[derive(Serialize)]
struct Checked<'a> {
    format_version: u32,
    key: &'a str,
    next_id: u64,
    exemplars: &'a [Exemplar],
}

/// All fields of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(rename = "format_version")]
    _format_version: u32,
    key: String,
    next_id: u64,
    exemplars: Vec<Exemplar>,
    sha256: String,
}

/// The field that files of every version have.
#[derive(Deserialize)]
struct Versioned {
    format_version: u32,
}

/// The name of a key's file.
pub(super) fn file_name(key: &str) -> String {
    let digest = hexadecimal(&Sha256::digest(key.as_bytes()));
    format!("{}{EXTENSION}", &digest[..NUM_DIGITS])
}

/// Whether a file with this name has to be the file of a key.
pub(super) fn is_key_file(name: &str) -> bool {
    !name.starts_with('.') && name.ends_with(EXTENSION)
}

/// Whether a file with this name was left by a killed [`atomic_file::write`]: `.`, the name of a key's file, `.` and
/// random characters.
pub(super) fn is_leftover(name: &str) -> bool {
    let Some((digits, suffix)) = name
        .strip_prefix('.')
        .and_then(|name| name.split_at_checked(NUM_DIGITS))
    else {
        return false;
    };
    let suffix = suffix.strip_prefix(EXTENSION);
    digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        && suffix.is_some_and(|suffix| suffix.starts_with('.'))
}

/// Rejects keys that are empty or contain control characters.
pub(super) fn check_key(key: &str) -> Result<(), InvalidKey> {
    if key.is_empty() {
        return Err(InvalidKey::Empty);
    }
    if key.chars().any(char::is_control) {
        return Err(InvalidKey::ControlCharacter);
    }
    Ok(())
}

/// Replaces the file of a key atomically.
pub(super) fn write(folder: &Path, contents: &KeyContents) -> Result<(), ExemplarStoreError> {
    let path = folder.join(file_name(&contents.key));
    let bytes = bytes(contents);
    check_size(&path, bytes.len() as u64)?;
    atomic_file::write(&path, &bytes)?;
    Ok(())
}

/// Reads the file of a key; `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<KeyContents>, ExemplarStoreError> {
    let bytes = match read_bytes(path) {
        Err(ExemplarStoreError::Read { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(None);
        }
        bytes => bytes?,
    };
    let contents = parse(path, &bytes)?;
    let expected = file_name(&contents.key);
    if path.file_name() != Some(expected.as_ref()) {
        return Err(ExemplarStoreError::OtherKey {
            path: path.to_owned(),
            expected,
        });
    }
    check(&contents).map_err(|source| ExemplarStoreError::Impossible {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(contents))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ExemplarStoreError> {
    let failed = |source| ExemplarStoreError::Read {
        path: path.to_owned(),
        source,
    };
    // Checked before opening, which could wait for the other end of a pipe.
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(ExemplarStoreError::NotAFile {
            path: path.to_owned(),
        });
    }
    check_size(path, metadata.len())?;
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // The file may be another one by now.
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    check_size(path, bytes.len() as u64)?;
    Ok(bytes)
}

fn check_size(path: &Path, found: u64) -> Result<(), ExemplarStoreError> {
    if found > MAX_FILE_BYTES {
        return Err(ExemplarStoreError::FileTooLarge {
            path: path.to_owned(),
            found,
            max: MAX_FILE_BYTES,
        });
    }
    Ok(())
}

/// The whole file.
fn bytes(contents: &KeyContents) -> Vec<u8> {
    let mut bytes = checked_bytes(contents);
    let sha256 = hexadecimal(&Sha256::digest(&bytes));
    bytes.pop(); // the closing brace
    bytes.extend_from_slice(format!(",\"sha256\":\"{sha256}\"}}\n").as_bytes());
    bytes
}

fn checked_bytes(contents: &KeyContents) -> Vec<u8> {
    let checked = Checked {
        format_version: FORMAT_VERSION,
        key: &contents.key,
        next_id: contents.next_id,
        exemplars: &contents.exemplars,
    };
    serde_json::to_vec(&checked).expect("exemplars are plain data")
}

/// The contents of a file with the right version and checksum.
fn parse(path: &Path, bytes: &[u8]) -> Result<KeyContents, ExemplarStoreError> {
    let not_json = |source| ExemplarStoreError::Json {
        path: path.to_owned(),
        source,
    };
    let Versioned { format_version } = serde_json::from_slice(bytes).map_err(not_json)?;
    if format_version != FORMAT_VERSION {
        return Err(ExemplarStoreError::Version {
            path: path.to_owned(),
            found: format_version,
            expected: FORMAT_VERSION,
        });
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(not_json)?;
    let contents = KeyContents {
        key: stored.key,
        next_id: stored.next_id,
        exemplars: stored.exemplars,
    };
    let sha256 = hexadecimal(&Sha256::digest(checked_bytes(&contents)));
    if sha256 != stored.sha256 {
        return Err(ExemplarStoreError::Checksum {
            path: path.to_owned(),
        });
    }
    Ok(contents)
}

/// Rejects contents that the store does not write under any limits.
fn check(contents: &KeyContents) -> Result<(), ImpossibleExemplars> {
    check_key(&contents.key)?;
    for pair in contents.exemplars.windows(2) {
        let (previous, found) = (pair[0].id, pair[1].id);
        if found <= previous {
            return Err(ImpossibleExemplars::IdOrder { previous, found });
        }
    }
    if let Some(blank) = contents.exemplars.iter().find(|one| one.is_blank()) {
        return Err(ImpossibleExemplars::Blank { id: blank.id });
    }
    let Some(last) = contents.exemplars.last() else {
        return Err(ImpossibleExemplars::Empty);
    };
    let next_id = contents.next_id;
    if next_id <= last.id || next_id > MAX_NEXT_ID {
        return Err(ImpossibleExemplars::NextId {
            next_id,
            last_id: last.id,
            max: MAX_NEXT_ID,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> KeyContents {
        KeyContents {
            key: "tenant".to_owned(),
            next_id: 7,
            exemplars: vec![
                Exemplar {
                    id: 2,
                    prompt: "question \"1\"\n".to_owned(),
                    answer: String::new(),
                },
                Exemplar {
                    id: 5,
                    prompt: String::new(),
                    answer: "äñ\u{0}".to_owned(),
                },
            ],
        }
    }

    fn path() -> std::path::PathBuf {
        file_name("tenant").into()
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut one = contents();
        one.exemplars.truncate(1);
        let checked = r#"{"format_version":1,"key":"tenant","next_id":7,"exemplars":[{"id":2,"prompt":"question \"1\"\n","answer":""}]}"#;
        let sha256 = hexadecimal(&Sha256::digest(checked));
        let expected = format!(
            "{},\"sha256\":\"{sha256}\"}}\n",
            checked.strip_suffix('}').unwrap()
        );
        assert_eq!(String::from_utf8(bytes(&one)).unwrap(), expected);
        assert_eq!(
            file_name("tenant"),
            format!("{}.json", &hexadecimal(&Sha256::digest("tenant"))[..32])
        );
    }

    #[test]
    fn a_truncated_file_is_an_error_at_every_length() {
        let whole = bytes(&contents());
        assert_eq!(parse(&path(), &whole).unwrap(), contents());
        for len in 0..whole.len() - 1 {
            let error = parse(&path(), &whole[..len]).unwrap_err();
            assert!(matches!(error, ExemplarStoreError::Json { .. }), "{len}");
            assert!(error.to_string().contains(path().to_str().unwrap()));
        }
        // Only the line feed is missing.
        assert_eq!(
            parse(&path(), &whole[..whole.len() - 1]).unwrap(),
            contents()
        );
    }

    #[test]
    fn a_changed_byte_is_an_error_or_changes_nothing() {
        let whole = bytes(&contents());
        let mut num_accepted = 0;
        for idx in 0..whole.len() {
            for flip in 1..=255 {
                let mut damaged = whole.clone();
                damaged[idx] ^= flip;
                if let Ok(read) = parse(&path(), &damaged) {
                    assert_eq!(read, contents(), "byte {idx} ^ {flip}");
                    num_accepted += 1;
                }
            }
        }
        // The line feed may become another kind of white space; the case of `\u00..` has no letters here.
        assert_eq!(num_accepted, 3);
    }

    #[test]
    fn leftovers_are_distinguished_from_other_files() {
        let name = file_name("tenant");
        assert!(is_leftover(&format!(".{name}.aB3xYz")));
        for other in [
            name.clone(),
            format!(".{name}"),
            format!("{name}.aB3xYz"),
            ".DS_Store".to_owned(),
            format!(".{}é", "0".repeat(31)),
            format!(".{}.txt.aB3xYz", "0".repeat(32)),
            String::new(),
        ] {
            assert!(!is_leftover(&other), "{other}");
        }
    }
}
