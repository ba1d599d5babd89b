//! One file that is one text, and the checks that every text passes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::corpus::{DocumentSink, NewDocument, Origin, count_lines};
use super::error::DataError;
use super::read::ReadOptions;

const BOM: &[u8] = b"\xEF\xBB\xBF";

pub(super) fn read(
    path: &Path,
    options: &ReadOptions,
    sink: &mut dyn DocumentSink,
) -> Result<(), DataError> {
    let bytes = read_bytes(path, options.max_total_bytes)?;
    sink.push(NewDocument::prose(
        decode(bytes, path)?,
        Origin::new(path, 1),
    ))
}

/// The whole file, never more than `max_bytes` of memory.
pub(super) fn read_bytes(path: &Path, max_bytes: u64) -> Result<Vec<u8>, DataError> {
    let failed = |source: io::Error| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(max_bytes.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(failed)?;
    if bytes.len() as u64 > max_bytes {
        return Err(DataError::TooLarge {
            path: path.to_owned(),
            max_bytes,
        });
    }
    Ok(bytes)
}

/// UTF-8 text without its byte order mark.
pub(super) fn decode(mut bytes: Vec<u8>, path: &Path) -> Result<String, DataError> {
    let bom_len = without_bom(&bytes, path)?;
    bytes.drain(..bom_len);
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        DataError::InvalidUtf8 {
            path: path.to_owned(),
            byte: (valid + bom_len) as u64,
            line: count_lines(&error.as_bytes()[..valid]) + 1,
        }
    })
}

/// How many bytes the byte order mark at the start of a file takes.
pub(super) fn without_bom(bytes: &[u8], path: &Path) -> Result<usize, DataError> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(DataError::Utf16 {
            path: path.to_owned(),
        });
    }
    Ok(if bytes.starts_with(BOM) { BOM.len() } else { 0 })
}
