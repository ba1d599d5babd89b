//! A folder of text or source files.
//!
//! The folder is walked in the order of file names. A folder is a sweep, so what cannot be text is skipped and
//! counted instead of being an error: hidden files and folders, symbolic links (never followed), special files,
//! files with a zero byte in their first 8 KiB, files over the size bound, and files that are not UTF-8.
//! `.jsonl` files are skipped as well, because their lines are records and not prose.

use std::collections::BTreeSet;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::corpus::{CorpusBuilder, Origin};
use super::error::DataError;
use super::read::{FolderLabels, Format, ReadOptions, lower_extension};
use super::txt;

const SNIFFED_BYTES: usize = 8 << 10;

struct FoundText {
    text: String,
    entry: DirEntry,
    sub_folder: Option<String>,
}

pub(super) fn read(
    root: &Path,
    options: &ReadOptions,
    builder: &mut CorpusBuilder,
) -> Result<(), DataError> {
    let texts = collect(root, options, builder)?;
    let labels = match options.folder_labels {
        FolderLabels::Auto => choose_labels(&texts),
        chosen => chosen,
    };
    for found in texts {
        let label = match labels {
            FolderLabels::SubFolders => found.sub_folder,
            FolderLabels::Extensions => lower_extension(found.entry.path()),
            FolderLabels::Auto | FolderLabels::Ignored => None,
        };
        builder.push(
            found.text,
            label.as_deref(),
            Origin::new(found.entry.into_path(), 1),
        );
    }
    Ok(())
}

fn collect(
    root: &Path,
    options: &ReadOptions,
    builder: &mut CorpusBuilder,
) -> Result<Vec<FoundText>, DataError> {
    let mut texts = Vec::new();
    let mut total_bytes = 0_u64;
    let mut walk = WalkDir::new(root)
        .follow_links(false)
        .sort_by_file_name()
        .into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| walk_error(error, root))?;
        let file_type = entry.file_type();
        if entry.depth() > 0 && is_hidden(&entry) {
            builder.skipped_mut().hidden += 1;
            if file_type.is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        if file_type.is_dir() || entry.depth() == 0 {
            continue;
        }
        let skipped = builder.skipped_mut();
        if file_type.is_symlink() {
            skipped.links += 1;
        } else if !file_type.is_file() {
            skipped.special += 1;
        } else if Format::of_file_name(entry.path()) == Format::JsonLines {
            skipped.record_files += 1;
        } else if entry
            .metadata()
            .map_err(|error| walk_error(error, root))?
            .len()
            > options.max_file_bytes
        {
            skipped.too_large += 1;
        } else if let Some(text) = read_text(&entry, options, builder)? {
            total_bytes += text.len() as u64;
            if total_bytes > options.max_total_bytes {
                return Err(DataError::TooLarge {
                    path: root.to_owned(),
                    max_bytes: options.max_total_bytes,
                });
            }
            let sub_folder = sub_folder(&entry, root);
            texts.push(FoundText {
                text,
                entry,
                sub_folder,
            });
        }
    }
    Ok(texts)
}

/// The text of a file, or `None` after counting why it is not one.
fn read_text(
    entry: &DirEntry,
    options: &ReadOptions,
    builder: &mut CorpusBuilder,
) -> Result<Option<String>, DataError> {
    let path = entry.path();
    let skipped = builder.skipped_mut();
    let bytes = match txt::read_bytes(path, options.max_file_bytes) {
        Ok(bytes) => bytes,
        Err(DataError::TooLarge { .. }) => {
            skipped.too_large += 1;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if bytes[..bytes.len().min(SNIFFED_BYTES)].contains(&0) {
        skipped.binary += 1;
        return Ok(None);
    }
    match txt::decode(bytes, path) {
        Ok(text) if text.chars().all(char::is_whitespace) => {
            skipped.empty += 1;
            Ok(None)
        }
        Ok(text) => Ok(Some(text)),
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

fn choose_labels(texts: &[FoundText]) -> FolderLabels {
    let sub_folders = texts
        .iter()
        .map(|found| found.sub_folder.as_deref())
        .collect::<BTreeSet<_>>();
    if sub_folders.len() >= 2 && !sub_folders.contains(&None) {
        FolderLabels::SubFolders
    } else {
        FolderLabels::Extensions
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
    use std::fs::{self, File};
    use std::io::Write;

    use super::super::{Corpus, read as read_path};
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

    fn texts_and_labels(corpus: &Corpus) -> Vec<(&str, Option<&str>)> {
        corpus
            .documents()
            .iter()
            .map(|document| (document.text.as_str(), corpus.label_name(document)))
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
        assert!(corpus.skipped().is_empty());
    }

    #[test]
    fn extensions_label_the_files_when_one_is_beside_the_sub_folders() {
        let folder = folder(&[("src/x.RS", b"x"), ("docs/a.md", b"a"), ("LICENSE", b"l")]);
        let corpus = read_path(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(
            texts_and_labels(&corpus),
            [("l", None), ("a", Some("md")), ("x", Some("rs"))]
        );
        let options = ReadOptions {
            folder_labels: FolderLabels::SubFolders,
            ..ReadOptions::default()
        };
        let corpus = read_path(folder.path(), &options).unwrap();
        assert_eq!(
            texts_and_labels(&corpus),
            [("l", None), ("a", Some("docs")), ("x", Some("src"))]
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
            ("rows.jsonl", b"{\"text\": \"a\"}\n"),
            ("long.txt", b"0123456789abcdef"),
            ("good.txt", b"\xEF\xBB\xBFgood"),
        ]);
        let options = ReadOptions {
            max_file_bytes: 15,
            ..ReadOptions::default()
        };
        let corpus = read_path(folder.path(), &options).unwrap();
        assert_eq!(texts_and_labels(&corpus), [("good", Some("txt"))]);
        let skipped = corpus.skipped();
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

    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_not_followed() {
        let folder = folder(&[("a.txt", b"a")]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("a.txt"), folder.path().join("b.txt"))
            .unwrap();
        let corpus = read_path(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(corpus.documents().len(), 1);
        assert_eq!(corpus.skipped().links, 2);
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
