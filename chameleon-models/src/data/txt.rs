//! One file that is one text, and the checks that every text passes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::document::{Origin, count_lines};
use super::error::DataError;
use super::sink::DocumentSink;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Bytes that are read at once.
const BLOCK: u64 = 256 << 10;

pub(super) fn read(path: &Path, sink: &mut dyn DocumentSink) -> Result<(), DataError> {
    sink.push_long(Origin::new(path, 1), &mut TextPieces::open(path)?)
}

/// The text of a file, block by block, without its byte order mark.
struct TextPieces<'a> {
    path: &'a Path,
    file: File,
    /// Bytes of a character that is not complete yet.
    rest: Vec<u8>,
    /// Bytes and lines that were returned.
    num_bytes: u64,
    num_lines: usize,
}

impl<'a> TextPieces<'a> {
    fn open(path: &'a Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path,
            file,
            rest: Vec::new(),
            num_bytes: 0,
            num_lines: 0,
        })
    }

    /// The next block, empty at the end of the file.
    fn block(&mut self) -> Result<String, DataError> {
        let mut bytes = std::mem::take(&mut self.rest);
        let num_read = (&mut self.file)
            .take(BLOCK)
            .read_to_end(&mut bytes)
            .map_err(|source| DataError::Read {
                path: self.path.to_owned(),
                source,
            })?;
        if self.num_bytes == 0 {
            let bom_len = without_bom(&bytes, self.path)?;
            bytes.drain(..bom_len);
            self.num_bytes = bom_len as u64;
        }
        if let Err(error) = std::str::from_utf8(&bytes) {
            let valid = error.valid_up_to();
            if error.error_len().is_some() || num_read == 0 {
                return Err(DataError::InvalidUtf8 {
                    path: self.path.to_owned(),
                    byte: self.num_bytes + valid as u64,
                    line: self.num_lines + count_lines(&bytes[..valid]) + 1,
                });
            }
            self.rest = bytes.split_off(valid);
        }
        let text = String::from_utf8(bytes).expect("an incomplete character was split off");
        self.num_bytes += text.len() as u64;
        self.num_lines += count_lines(text.as_bytes());
        Ok(text)
    }
}

impl Iterator for TextPieces<'_> {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.block() {
            // A block of less than one character, which only the end of the file may follow or complete.
            Ok(text) if text.is_empty() && !self.rest.is_empty() => self.next(),
            Ok(text) if text.is_empty() => None,
            found => Some(found),
        }
    }
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
