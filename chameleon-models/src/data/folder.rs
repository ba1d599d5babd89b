//! A folder of texts, source files, tables, or all of these.
//!
//! The folder is walked in the order of file names. A folder is a sweep, so what cannot be text is skipped and
//! counted instead of being an error: hidden files and folders, symbolic links (never followed), special files,
//! files with a zero byte in their first 8 KiB, files over the size bound, and files that are not UTF-8.
//!
//! `.parquet`, `.csv`, `.tsv` and `.jsonl` hold rows. Beside prose, one whose first row has no text is skipped and
//! counted; in a folder of nothing but such files (the parts of a data set), it is an error. `.json` holds rows in
//! such a folder and is prose otherwise.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::conversation::RenderChat;
use super::document::{Document, Origin};
use super::error::DataError;
use super::fields::{FileRecords, RecordReader, read_records};
use super::options::{Format, ReadOptions, lower_extension};
use super::sink::DocumentSink;
use super::txt;

const SNIFFED_BYTES: u64 = 8 << 10;

struct Found {
    path: PathBuf,
    format: Format,
    sub_folder: Option<String>,
}

pub(super) fn read(
    root: &Path,
    options: &ReadOptions,
    render_chat: Option<&RenderChat<'_>>,
    sink: &mut dyn DocumentSink,
) -> Result<(), DataError> {
    let mut files = collect(root, options, sink)?;
    let is_data_set = files.iter().all(|found| found.format != Format::Text);
    if !is_data_set {
        for found in &mut files {
            if found.format == Format::Json {
                found.format = Format::Text;
            }
        }
    }
    let labels = choose_labels(&files, is_data_set);
    for found in files {
        let label = match labels {
            FileLabels::SubFolders => found.sub_folder,
            FileLabels::Extensions => lower_extension(&found.path),
            FileLabels::None => None,
        };
        if found.format == Format::Text {
            if let Some(text) = read_text(&found.path, options, sink)? {
                sink.push(Document {
                    label,
                    ..Document::prose(text, Origin::new(found.path, 1))
                })?;
            }
            continue;
        }
        let records = RecordReader::new(options, render_chat, sink, label);
        match read_records(&found.path, options, records)? {
            FileRecords::Read => {}
            FileRecords::Unsuitable(error) if is_data_set => return Err(error),
            FileRecords::Unsuitable(_) => sink.skipped_mut().record_files += 1,
        }
    }
    Ok(())
}

fn collect(
    root: &Path,
    options: &ReadOptions,
    sink: &mut dyn DocumentSink,
) -> Result<Vec<Found>, DataError> {
    let mut files = Vec::new();
    let mut walk = WalkDir::new(root)
        .follow_links(false)
        .sort_by_file_name()
        .into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| walk_error(error, root))?;
        let file_type = entry.file_type();
        let skipped = sink.skipped_mut();
        if entry.depth() > 0 && is_hidden(&entry) {
            skipped.hidden += 1;
            if file_type.is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        if file_type.is_dir() || entry.depth() == 0 {
            continue;
        }
        let format = Format::of_file_name(entry.path());
        let num_bytes = entry
            .metadata()
            .map_err(|error| walk_error(error, root))?
            .len();
        if file_type.is_symlink() {
            skipped.links += 1;
        } else if !file_type.is_file() {
            skipped.special += 1;
        } else if format == Format::Text && num_bytes > options.max_file_bytes {
            skipped.too_large += 1;
        } else if format != Format::Parquet && is_binary(entry.path())? {
            skipped.binary += 1;
        } else {
            let sub_folder = sub_folder(&entry, root);
            files.push(Found {
                path: entry.into_path(),
                format,
                sub_folder,
            });
        }
    }
    Ok(files)
}

/// Whether there is a zero byte near the start of a file, and it is not because of UTF-16.
fn is_binary(path: &Path) -> Result<bool, DataError> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SNIFFED_BYTES).read_to_end(&mut start))
        .map_err(|source| DataError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(start.contains(&0) && txt::without_bom(&start, path).is_ok())
}

/// The text of a file, or `None` after counting why it is not one.
fn read_text(
    path: &Path,
    options: &ReadOptions,
    sink: &mut dyn DocumentSink,
) -> Result<Option<String>, DataError> {
    let skipped = sink.skipped_mut();
    let text =
        txt::read_bytes(path, options.max_file_bytes).and_then(|bytes| txt::decode(bytes, path));
    match text {
        Ok(text) => Ok(Some(text)),
        Err(DataError::TooLarge { .. }) => {
            skipped.too_large += 1;
            Ok(None)
        }
        Err(DataError::InvalidUtf8 { path, byte, .. }) => {
            skipped.invalid_utf8.push((path, byte));
            Ok(None)
        }
        Err(DataError::Utf16 { path }) => {
            skipped.invalid_utf8.push((path, 0));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What labels the files of a folder.
#[derive(Debug, Clone, Copy)]
enum FileLabels {
    /// The first-level sub-folder.
    SubFolders,
    /// The extension in lower case without its dot; files without one have no label.
    Extensions,
    None,
}

/// Sub-folders if every file lies in one and there are at least two of them; else extensions, except among tables.
fn choose_labels(files: &[Found], is_data_set: bool) -> FileLabels {
    let sub_folders = files
        .iter()
        .map(|found| found.sub_folder.as_deref())
        .collect::<BTreeSet<_>>();
    if sub_folders.len() >= 2 && !sub_folders.contains(&None) {
        FileLabels::SubFolders
    } else if is_data_set {
        FileLabels::None
    } else {
        FileLabels::Extensions
    }
}

/// The first folder below `root`, for files that lie in one.
fn sub_folder(entry: &DirEntry, root: &Path) -> Option<String> {
    if entry.depth() < 2 {
        return None;
    }
    let relative = entry.path().strip_prefix(root).ok()?;
    let first = relative.components().next()?;
    Some(first.as_os_str().to_string_lossy().into_owned())
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn walk_error(error: walkdir::Error, root: &Path) -> DataError {
    let path = error.path().unwrap_or(root).to_owned();
    DataError::Read {
        path,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::super::{Documents, read_documents};
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(bytes).unwrap();
        }
        folder
    }

    fn read_path(path: &Path, options: &ReadOptions) -> Result<Documents, DataError> {
        read_documents(path, options, None)
    }

    fn texts_and_labels(corpus: &Documents) -> Vec<(&str, Option<&str>)> {
        corpus
            .documents
            .iter()
            .map(|document| (document.text.as_str(), document.label.as_deref()))
            .collect()
    }

    #[test]
    fn sub_folders_label_the_files_when_all_files_are_in_one() {
        let folder = folder(&[
            ("prose/b.txt", b"b"),
            ("prose/a.md", b"a"),
            ("code/deep/er/x.rs", b"x"),
        ]);
        let corpus = read_path(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(
            texts_and_labels(&corpus),
            [
                ("x", Some("code")),
                ("a", Some("prose")),
                ("b", Some("prose"))
            ]
        );
        assert!(corpus.skipped.is_empty());
    }

    #[test]
    fn extensions_label_the_files_when_one_is_beside_the_sub_folders() {
        let folder = folder(&[("src/x.RS", b"x"), ("docs/a.md", b"a"), ("LICENSE", b"l")]);
        let corpus = read_path(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(
            texts_and_labels(&corpus),
            [("l", None), ("a", Some("md")), ("x", Some("rs"))]
        );
    }

    #[test]
    fn what_is_not_text_is_counted_and_skipped() {
        let folder = folder(&[
            (".git/config", b"hidden"),
            (".hidden", b"hidden"),
            ("image.png", b"\x89PNG\0\0"),
            ("latin.txt", b"caf\xE9"),
            ("wide.txt", b"\xFF\xFEa!"),
            ("blank.txt", b" \n\n"),
            ("rows.jsonl", b"{\"size\": 1}\n"),
            ("package.json", b"{}"),
            ("long.txt", b"0123456789abcdef"),
            ("good.txt", b"\xEF\xBB\xBFgood"),
        ]);
        let options = ReadOptions {
            max_file_bytes: 15,
            ..ReadOptions::default()
        };
        let corpus = read_path(folder.path(), &options).unwrap();
        assert_eq!(
            texts_and_labels(&corpus),
            [("good", Some("txt")), ("{}", Some("json"))]
        );
        let skipped = corpus.skipped;
        assert_eq!((skipped.hidden, skipped.binary, skipped.empty), (2, 1, 1));
        assert_eq!((skipped.record_files, skipped.too_large), (1, 1));
        assert_eq!(
            skipped.invalid_utf8,
            [
                (folder.path().join("latin.txt"), 3),
                (folder.path().join("wide.txt"), 0)
            ]
        );
    }

    #[test]
    fn rows_beside_prose_are_read_too() {
        let folder = folder(&[
            ("a.txt", b"prose"),
            ("b.jsonl", b"{\"text\": \"row\", \"label\": \"x\"}\n"),
            ("c.csv", b"text\ncell\n"),
        ]);
        let corpus = read_path(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(
            texts_and_labels(&corpus),
            [
                ("prose", Some("txt")),
                ("row", Some("x")),
                ("cell", Some("csv"))
            ]
        );
    }

    #[test]
    fn a_folder_of_tables_is_one_data_set() {
        let parts: [(&str, &[u8]); 2] = [
            ("part-0.json", b"[{\"text\": \"a\"}]"),
            ("part-1.jsonl", b"{\"text\": \"b\"}\n"),
        ];
        let corpus = read_path(folder(&parts).path(), &ReadOptions::default()).unwrap();
        assert_eq!(texts_and_labels(&corpus), [("a", None), ("b", None)]);
        let spoilt = folder(&[parts[0], ("part-1.jsonl", b"{\"body\": \"b\"}\n")]);
        let error = read_path(spoilt.path(), &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, DataError::FieldMissing { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_not_followed() {
        let folder = folder(&[("a.txt", b"a")]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("a.txt"), folder.path().join("b.txt"))
            .unwrap();
        let corpus = read_path(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(corpus.documents.len(), 1);
        assert_eq!(corpus.skipped.links, 2);
    }

    #[test]
    fn a_folder_without_text_is_an_error() {
        let folder = folder(&[("image.png", b"\0\0")]);
        let error = read_path(folder.path(), &ReadOptions::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("holds no text (skipped: 1 binary)")
        );
    }

    #[test]
    fn the_text_of_all_files_together_is_bounded() {
        let folder = folder(&[("a.txt", b"0123456789"), ("b.txt", b"0123456789")]);
        let options = ReadOptions {
            max_total_bytes: 15,
            ..ReadOptions::default()
        };
        let error = read_path(folder.path(), &options).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { max_bytes: 15, .. }));
    }
}
