//! The guarantees of the store: durability, limits, isolation of keys, one writer, and validation of the files on disk.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// The folder that [`adds_until_it_is_killed`] uses when it runs as another process.
const CHILD_FOLDER: &str = "CHAMELEON_TEST_EXEMPLAR_FOLDER";

fn new(prompt: &str, answer: &str) -> NewExemplar {
    NewExemplar {
        prompt: prompt.to_owned(),
        answer: answer.to_owned(),
    }
}

fn open(folder: &TempDir) -> ExemplarStore {
    open_with(folder, StoreLimits::default())
}

fn open_with(folder: &TempDir, limits: StoreLimits) -> ExemplarStore {
    ExemplarStore::open(folder.path(), limits).unwrap()
}

/// Keys, ids and texts, without revisions.
type Contents = Vec<(String, Vec<Exemplar>)>;

fn contents<'a>(groups: impl IntoIterator<Item = &'a Arc<GroupExemplars>>) -> Contents {
    groups
        .into_iter()
        .map(|group| (group.key.clone(), group.exemplars.clone()))
        .collect()
}

fn read(folder: &TempDir) -> Contents {
    contents(ExemplarStore::read(folder.path()).unwrap().values())
}

fn ids(store: &ExemplarStore, key: &str) -> Vec<u64> {
    let group = store.get(key);
    group.map_or_else(Vec::new, |group| {
        group.exemplars.iter().map(|one| one.id).collect()
    })
}

fn path_of(folder: &TempDir, key: &str) -> PathBuf {
    folder.path().join(FOLDER).join(key_file::file_name(key))
}

fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

/// Names of the files with these bytes, of all files in the adapter's folder.
fn files_with(folder: &TempDir, bytes: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in walkdir::WalkDir::new(folder.path()) {
        let entry = entry.unwrap();
        if !entry.file_type().is_file() {
            continue;
        }
        let found = fs::read(entry.path()).unwrap();
        if found
            .windows(bytes.len())
            .any(|window| window == bytes.as_bytes())
        {
            names.push(entry.file_name().to_str().unwrap().to_owned());
        }
    }
    names
}

fn names(folder: &TempDir) -> Vec<String> {
    let mut names = fs::read_dir(folder.path().join(FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn exemplars_survive_reopening_in_the_order_of_addition() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    assert!(!folder.path().join(FOLDER).exists());
    let added = store
        .add("b", vec![new("p\"\n\u{0}", "ä"), new("", "answer only")])
        .unwrap();
    assert_eq!(
        added,
        Added {
            ids: vec![0, 1],
            num_removed: 0
        }
    );
    store.add("a", vec![new("plain text", "")]).unwrap();
    let added = store.add("b", vec![new("third", "3")]).unwrap();
    assert_eq!(added.ids, [2]);
    assert_eq!(store.add("c", Vec::new()).unwrap(), Added::default());
    let before = contents(store.groups());
    assert_eq!(before[0].0, "a");
    assert_eq!(before[1].1[1].answer, "answer only");
    assert_eq!((store.num_keys(), store.num_bytes()), (2, 33));
    drop(store);
    let store = open(&folder);
    assert_eq!(contents(store.groups()), before);
    assert_eq!((store.num_keys(), store.num_bytes()), (2, 33));
    assert_eq!(read(&folder), before);
}

#[test]
fn every_change_of_a_group_is_another_revision() {
    let (folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut store, mut other) = (open(&folder), open(&other_folder));
    let mut revisions = Vec::new();
    store.add("a", vec![new("1", ""), new("2", "")]).unwrap();
    revisions.push(store.get("a").unwrap().revision);
    store.add("b", vec![new("1", "")]).unwrap();
    revisions.push(store.get("b").unwrap().revision);
    other.add("a", vec![new("1", "")]).unwrap();
    revisions.push(other.get("a").unwrap().revision);
    assert!(!store.remove("a", 7).unwrap());
    assert_eq!(store.get("a").unwrap().revision, revisions[0]);
    let snapshot = Arc::clone(store.get("a").unwrap());
    assert!(store.remove("a", 0).unwrap());
    revisions.push(store.get("a").unwrap().revision);
    assert_eq!(snapshot.exemplars.len(), 2);
    drop(store);
    revisions.push(open(&folder).get("a").unwrap().revision);
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 5);
}

#[test]
fn the_oldest_exemplars_leave_first() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        max_exemplars: 3,
        max_bytes: 10,
        ..StoreLimits::default()
    };
    let mut store = open_with(&folder, limits);
    // By count.
    let five = ["1", "2", "3", "4", "5"].map(|text| new(text, ""));
    let added = store.add("a", five.to_vec()).unwrap();
    assert_eq!((added.ids, added.num_removed), (vec![0, 1, 2, 3, 4], 2));
    assert_eq!(ids(&store, "a"), [2, 3, 4]);
    // By bytes: 1 + 1 + 4 + 5 are too many.
    assert_eq!(
        store.add("a", vec![new("1234", "")]).unwrap().num_removed,
        1
    );
    assert_eq!(
        store.add("a", vec![new("12", "345")]).unwrap().num_removed,
        1
    );
    assert_eq!(ids(&store, "a"), [4, 5, 6]);
    let exactly = new("12345", "67890");
    assert_eq!(store.add("a", vec![exactly]).unwrap().num_removed, 3);
    assert_eq!(ids(&store, "a"), [7]);
    assert_eq!(store.num_bytes(), 10);
    // One that does not fit at all changes nothing, and neither do those beside it.
    let refused = store.add("a", vec![new("ok", ""), new("12345", "678901")]);
    assert!(matches!(
        refused,
        Err(ExemplarStoreError::ExemplarTooLarge {
            exemplar_idx: 1,
            found: 11,
            max: 10
        })
    ));
    assert_eq!(ids(&store, "a"), [7]);
    drop(store);
    assert_eq!(ids(&open(&folder), "a"), [7]);
}

#[test]
fn smaller_limits_apply_from_the_next_addition() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    for key in ["a", "b", "c"] {
        store.add(key, vec![new("text", ""); 10]).unwrap();
    }
    drop(store);
    let limits = StoreLimits {
        max_keys: 2,
        max_exemplars: 4,
        ..StoreLimits::default()
    };
    let mut store = open_with(&folder, limits);
    assert_eq!((store.num_keys(), ids(&store, "a").len()), (3, 10));
    assert!(store.remove("a", 3).unwrap());
    assert_eq!(ids(&store, "a").len(), 9);
    assert_eq!(
        store.add("a", vec![new("text", "")]).unwrap().num_removed,
        6
    );
    assert_eq!(ids(&store, "a"), [7, 8, 9, 10]);
    let refused = store.add("d", vec![new("text", "")]);
    assert!(matches!(
        refused,
        Err(ExemplarStoreError::TooManyKeys { max: 2 })
    ));
    // Every limit is valid, also one that keeps nothing.
    drop(store);
    let limits = StoreLimits {
        max_exemplars: 0,
        ..StoreLimits::default()
    };
    let mut store = open_with(&folder, limits);
    assert_eq!(
        store.add("a", vec![new("text", "")]).unwrap().num_removed,
        5
    );
    assert_eq!(
        store.add("e", vec![new("text", "")]).unwrap().num_removed,
        1
    );
    assert_eq!(store.num_keys(), 2);
}

#[test]
fn ids_are_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    store.add("a", vec![new("1", ""), new("2", "")]).unwrap();
    assert!(store.remove("a", 1).unwrap());
    assert!(!store.remove("a", 1).unwrap());
    drop(store);
    let mut store = open(&folder);
    assert_eq!(store.add("a", vec![new("3", "")]).unwrap().ids, [2]);
    assert!(store.remove("a", 0).unwrap());
    assert!(store.remove("a", 2).unwrap());
    assert_eq!(store.get("a"), None);
    assert!(!path_of(&folder, "a").exists());
    assert_eq!(store.add("a", vec![new("4", "")]).unwrap().ids, [3]);
    assert!(store.remove_key("a").unwrap());
    assert!(!store.remove_key("a").unwrap());
    assert_eq!(store.add("a", vec![new("5", "")]).unwrap().ids, [4]);
}

#[test]
fn texts_of_a_key_are_in_its_file_only_and_leave_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    store
        .add("b", vec![new("other", "text"), new("more", "")])
        .unwrap();
    for round in 0..3 {
        let canary = format!("canary-{round}");
        store
            .add("key-of-a", vec![new(&canary, "x"), new("y", &canary)])
            .unwrap();
    }
    store.add("b", vec![new("again", "")]).unwrap();
    let own = [key_file::file_name("key-of-a")];
    assert_eq!(files_with(&folder, "canary"), own);
    assert_eq!(files_with(&folder, "key-of-a"), own);
    // A removed exemplar is in no file, while the others are.
    assert!(store.remove("key-of-a", 0).unwrap());
    assert!(store.remove("key-of-a", 1).unwrap());
    assert_eq!(files_with(&folder, "canary-0"), [""; 0]);
    assert_eq!(files_with(&folder, "canary-1"), own);
    assert!(store.remove_key("key-of-a").unwrap());
    for text in ["canary", "key-of-a"] {
        assert_eq!(files_with(&folder, text), [""; 0]);
    }
    assert_eq!(ids(&store, "b"), [0, 1, 2]);
    assert_eq!(
        names(&folder),
        [key_file::file_name("b"), folder::LOCK_FILE.to_owned()]
    );
}

#[test]
fn leftovers_of_interrupted_writes_are_deleted_by_writers_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    store.add("a", vec![new("kept", "")]).unwrap();
    let groups = folder.path().join(FOLDER);
    // As a killed `atomic_file::write` leaves it: a hidden sibling that was not renamed.
    let leftover = tempfile::Builder::new()
        .prefix(&format!(".{}.", key_file::file_name("b")))
        .tempfile_in(&groups)
        .unwrap();
    let (mut file, path) = leftover.keep().unwrap();
    file.write_all(b"{\"key\":\"b\",canary").unwrap();
    put(&groups.join("notes.txt"), b"of somebody else");
    assert_eq!(read(&folder).len(), 1);
    assert!(path.exists());
    drop(store);
    let store = open(&folder);
    assert!(!path.exists());
    assert_eq!(files_with(&folder, "canary"), [""; 0]);
    assert!(groups.join("notes.txt").exists());
    assert_eq!(contents(store.groups()), read(&folder));
}

#[test]
fn there_is_one_writer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits::default();
    let (mut first, mut second) = (open(&folder), open(&folder));
    first.add("a", vec![new("1", "")]).unwrap();
    // Opened before there was a folder, and opened afterwards.
    let error = second.add("a", vec![new("2", "")]).unwrap_err();
    assert!(matches!(error, ExemplarStoreError::InUse { .. }));
    assert!(
        error
            .to_string()
            .ends_with("groups is used by another process")
    );
    for refused in [second.remove("a", 0), second.remove_key("a")] {
        assert!(matches!(refused, Err(ExemplarStoreError::InUse { .. })));
    }
    let third = ExemplarStore::open(folder.path(), limits);
    assert!(matches!(third, Err(ExemplarStoreError::InUse { .. })));
    assert_eq!(read(&folder).len(), 1);
    drop(first);
    // What the first wrote is read when its folder is locked.
    assert_eq!(second.num_keys(), 0);
    assert_eq!(second.add("a", vec![new("2", "")]).unwrap().ids, [1]);
    assert_eq!(ids(&second, "a"), [0, 1]);
    let fourth = ExemplarStore::open(folder.path(), limits);
    assert!(matches!(fourth, Err(ExemplarStoreError::InUse { .. })));
}

#[test]
fn a_dropped_store_is_unlocked_while_copies_of_its_file_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    store.add("a", vec![new("1", "")]).unwrap();
    // As in a process that was started by another thread, until it runs its program.
    let copy = store.lock.as_ref().unwrap().0.try_clone().unwrap();
    drop(store);
    assert_eq!(ids(&open(&folder), "a"), [0]);
    drop(copy);
}

#[test]
fn invalid_additions_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        max_keys: 1,
        max_key_bytes: 4,
        ..StoreLimits::default()
    };
    let mut store = open_with(&folder, limits);
    for (key, expected) in [
        ("", InvalidKey::Empty),
        ("ab\n", InvalidKey::ControlCharacter),
        ("\u{85}", InvalidKey::ControlCharacter),
        ("äää", InvalidKey::TooLong { found: 6, max: 4 }),
    ] {
        let refused = store.add(key, vec![new("1", "")]);
        assert!(
            matches!(refused, Err(ExemplarStoreError::Key(found)) if found == expected),
            "{key:?}"
        );
    }
    for (prompt, answer) in [("", ""), (" \n", "\t")] {
        let refused = store.add("a", vec![new("1", ""), new(prompt, answer)]);
        assert!(matches!(
            refused,
            Err(ExemplarStoreError::Blank { exemplar_idx: 1 })
        ));
    }
    assert!(!folder.path().join(FOLDER).exists());
    assert!(!store.remove("a", 0).unwrap());
    assert!(!store.remove_key("a").unwrap());
    assert!(!folder.path().join(FOLDER).exists());
    store.add("../a", vec![new("1", "")]).unwrap();
    let refused = store.add("b", vec![new("1", "")]);
    assert!(matches!(
        refused,
        Err(ExemplarStoreError::TooManyKeys { max: 1 })
    ));
    assert_eq!(names(&folder).len(), 2);
}

#[test]
fn failed_writes_leave_the_store_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let groups = folder.path().join(FOLDER);
    let mut store = open(&folder);
    // The folder cannot be created.
    put(&groups, b"a file");
    let failed = store.add("a", vec![new("1", "")]);
    assert!(matches!(
        failed,
        Err(ExemplarStoreError::CreateFolder { .. })
    ));
    assert_eq!(store.num_keys(), 0);
    fs::remove_file(&groups).unwrap();
    store.add("a", vec![new("1", ""), new("2", "")]).unwrap();
    let before = Arc::clone(store.get("a").unwrap());
    // The files cannot be replaced or removed: folders have their names.
    let saved = fs::read(path_of(&folder, "a")).unwrap();
    fs::remove_file(path_of(&folder, "a")).unwrap();
    for key in ["a", "b"] {
        fs::create_dir(path_of(&folder, key)).unwrap();
        let failed = store.add(key, vec![new("3", "")]);
        assert!(matches!(failed, Err(ExemplarStoreError::Write(_))));
    }
    let failed = store.remove("a", 0);
    assert!(matches!(failed, Err(ExemplarStoreError::Write(_))));
    let failed = store.remove_key("a");
    assert!(matches!(failed, Err(ExemplarStoreError::Remove { .. })));
    assert!(Arc::ptr_eq(store.get("a").unwrap(), &before));
    assert_eq!(store.num_keys(), 1);
    // Nothing was left behind, and the ids of failed additions are free.
    assert_eq!(names(&folder).len(), 3);
    for key in ["a", "b"] {
        fs::remove_dir(path_of(&folder, key)).unwrap();
    }
    put(&path_of(&folder, "a"), &saved);
    assert_eq!(store.add("a", vec![new("3", "")]).unwrap().ids, [2]);
    drop(store);
    assert_eq!(ids(&open(&folder), "a"), [0, 1, 2]);
    // The adapter's folder is not created.
    let missing = folder.path().join("no adapter");
    let mut store = ExemplarStore::open(&missing, StoreLimits::default()).unwrap();
    assert!(store.add("a", vec![new("1", "")]).is_err());
    assert!(!missing.exists());
}

#[test]
fn removing_a_key_removes_the_file_of_a_failed_addition() {
    let (folder, bytes) = folder_with_a();
    let mut store = open(&folder);
    assert!(store.remove_key("a").unwrap());
    // The state after an addition that was renamed, but not synced: a file, and no group in memory.
    put(&path_of(&folder, "a"), &bytes);
    assert!(store.remove_key("a").unwrap());
    assert!(!store.remove_key("a").unwrap());
    assert!(!path_of(&folder, "a").exists());
    // The state after a removal of which only the sync failed: a group in memory, and no file.
    store.add("a", vec![new("1", "")]).unwrap();
    fs::remove_file(path_of(&folder, "a")).unwrap();
    assert!(store.remove_key("a").unwrap());
    assert_eq!(store.num_keys(), 0);
}

#[test]
fn files_are_not_written_larger_than_they_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        max_bytes: usize::MAX,
        ..StoreLimits::default()
    };
    let mut store = open_with(&folder, limits);
    let text = "x".repeat(9 << 20);
    store.add("a", vec![new(&text, "")]).unwrap();
    let failed = store.add("a", vec![new(&text, "")]);
    assert!(matches!(
        failed,
        Err(ExemplarStoreError::FileTooLarge { .. })
    ));
    assert_eq!(ids(&store, "a"), [0]);
    drop(store);
    assert_eq!(ids(&open(&folder), "a"), [0]);
}

/// Opens and reads a folder with this file of the key `a`; both have to fail, with a message that names the file.
fn refused(folder: &TempDir, bytes: &[u8]) -> ExemplarStoreError {
    put(&path_of(folder, "a"), bytes);
    refused_as_it_is(folder, &path_of(folder, "a"))
}

fn refused_as_it_is(folder: &TempDir, path: &Path) -> ExemplarStoreError {
    let error = ExemplarStore::read(folder.path()).unwrap_err();
    let opened = ExemplarStore::open(folder.path(), StoreLimits::default());
    assert_eq!(opened.unwrap_err().to_string(), error.to_string());
    assert!(error.to_string().contains(path.to_str().unwrap()));
    error
}

/// A folder with the file of the key `a`, and its bytes.
fn folder_with_a() -> (TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    store.add("a", vec![new("1", "one"), new("2", "")]).unwrap();
    let bytes = fs::read(path_of(&folder, "a")).unwrap();
    (folder, bytes)
}

/// The file with other fields and a right checksum, which no accident makes.
fn forged(fields: &str) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let sha256 = crate::files::fingerprint::hexadecimal(&Sha256::digest(format!("{{{fields}}}")));
    format!("{{{fields},\"sha256\":\"{sha256}\"}}\n").into_bytes()
}

#[test]
fn damaged_files_are_errors_that_name_them() {
    let (folder, whole) = folder_with_a();
    for len in 0..whole.len() - 1 {
        let error = refused(&folder, &whole[..len]);
        assert!(matches!(error, ExemplarStoreError::Json { .. }), "{len}");
    }
    put(&path_of(&folder, "a"), &whole);
    let expected = read(&folder);
    for idx in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[idx] ^= 1 << bit;
            put(&path_of(&folder, "a"), &damaged);
            if let Ok(groups) = ExemplarStore::read(folder.path()) {
                assert_eq!(contents(groups.values()), expected, "byte {idx} bit {bit}");
            }
        }
    }
    for garbage in [&b""[..], b"[]", b"null", b"\0\0\0", b"\xff", &[b'['; 4096]] {
        let error = refused(&folder, garbage);
        assert!(matches!(error, ExemplarStoreError::Json { .. }));
    }
    // Nothing was deleted.
    put(&path_of(&folder, "a"), &whole);
    assert_eq!(contents(open(&folder).groups()), expected);
}

#[test]
fn impossible_files_are_errors_that_name_them() {
    let (folder, whole) = folder_with_a();
    let one = r#""exemplars":[{"id":4,"prompt":"p","answer":""}]"#;
    let valid = forged(&format!(
        r#""format_version":1,"key":"a","next_id":5,{one}"#
    ));
    put(&path_of(&folder, "a"), &valid);
    assert_eq!(read(&folder)[0].1[0].id, 4);

    let text = String::from_utf8(whole).unwrap();
    for version in ["0", "2", "4294967295"] {
        let version = format!("\"format_version\":{version}");
        let other = text.replace("\"format_version\":1", &version);
        let error = refused(&folder, other.as_bytes());
        assert!(matches!(error, ExemplarStoreError::Version { .. }));
    }
    let other = text.replace("\"key\"", "\"unknown\":1,\"key\"");
    let error = refused(&folder, other.as_bytes());
    assert!(matches!(error, ExemplarStoreError::Json { .. }));
    let other = text.replace("one", "two");
    let error = refused(&folder, other.as_bytes());
    assert!(matches!(error, ExemplarStoreError::Checksum { .. }));

    let error = refused(
        &folder,
        &forged(&format!(
            r#""format_version":1,"key":"b","next_id":5,{one}"#
        )),
    );
    assert!(matches!(error, ExemplarStoreError::OtherKey { .. }));
    let max = key_file::MAX_NEXT_ID;
    let two = |first: u64, second: u64| {
        format!(
            r#""exemplars":[{{"id":{first},"prompt":"p","answer":""}},{{"id":{second},"prompt":"p","answer":""}}]"#
        )
    };
    let next_id = |next_id, last_id| ImpossibleExemplars::NextId {
        next_id,
        last_id,
        max,
    };
    let order = |previous, found| ImpossibleExemplars::IdOrder { previous, found };
    for (id, exemplars, expected) in [
        (4, one.to_owned(), next_id(4, 4)),
        (max + 1, one.to_owned(), next_id(max + 1, 4)),
        (u64::MAX, one.to_owned(), next_id(u64::MAX, 4)),
        (9, two(4, 4), order(4, 4)),
        (9, two(u64::MAX, 0), order(u64::MAX, 0)),
        (9, "\"exemplars\":[]".to_owned(), ImpossibleExemplars::Empty),
        (
            9,
            one.replace("\"p\"", "\" \""),
            ImpossibleExemplars::Blank { id: 4 },
        ),
    ] {
        let fields = format!(r#""format_version":1,"key":"a","next_id":{id},{exemplars}"#);
        let error = refused(&folder, &forged(&fields));
        assert!(
            matches!(&error, ExemplarStoreError::Impossible { source, .. } if *source == expected),
            "{error:?}"
        );
    }
    // The last id is the last one: the key still opens, and gets no more exemplars.
    let fields = format!(r#""format_version":1,"key":"a","next_id":{max},{one}"#);
    put(&path_of(&folder, "a"), &forged(&fields));
    let full = open(&folder).add("a", vec![new("1", "")]);
    assert!(matches!(full, Err(ExemplarStoreError::IdsExhausted)));
}

#[test]
fn only_regular_files_of_a_bounded_size_are_read() {
    let (folder, whole) = folder_with_a();
    let path = path_of(&folder, "a");
    // A sparse file: its length is checked before anything is read.
    for len in [key_file::MAX_FILE_BYTES + 1, 1 << 40] {
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len)
            .unwrap();
        let error = refused_as_it_is(&folder, &path);
        assert!(matches!(error, ExemplarStoreError::FileTooLarge { .. }));
    }
    // The same texts under another name, and a name that no key has.
    fs::remove_file(&path).unwrap();
    for name in [key_file::file_name("b"), "a.json".to_owned()] {
        let other = folder.path().join(FOLDER).join(name);
        put(&other, &whole);
        let error = refused_as_it_is(&folder, &other);
        assert!(matches!(error, ExemplarStoreError::OtherKey { .. }));
        fs::remove_file(&other).unwrap();
    }
    fs::create_dir(&path).unwrap();
    let error = refused_as_it_is(&folder, &path);
    assert!(matches!(error, ExemplarStoreError::NotAFile { .. }));
    fs::remove_dir(&path).unwrap();
    #[cfg(unix)]
    {
        put(&folder.path().join("elsewhere"), &whole);
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        let error = refused_as_it_is(&folder, &path);
        assert!(matches!(error, ExemplarStoreError::NotAFile { .. }));
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(read(&folder), []);
    // A file where the folder should be.
    fs::remove_dir_all(folder.path().join(FOLDER)).unwrap();
    put(&folder.path().join(FOLDER), &whole);
    let read = ExemplarStore::read(folder.path());
    assert!(matches!(read, Err(ExemplarStoreError::Read { .. })));
    let opened = ExemplarStore::open(folder.path(), StoreLimits::default());
    assert!(matches!(opened, Err(ExemplarStoreError::Lock { .. })));
}

#[test]
fn readers_see_whole_groups_while_a_writer_changes_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut num_reads = 0;
            while !is_done.load(Ordering::Relaxed) {
                for (key, group) in ExemplarStore::read(folder.path()).unwrap() {
                    assert!(group.exemplars.iter().all(|one| one.answer == key));
                    num_reads += 1;
                }
            }
            num_reads
        });
        for round in 0..150 {
            for key in ["a", "b"] {
                store.add(key, vec![new("p", key)]).unwrap();
            }
            if round % 3 == 2 {
                store.remove_key("a").unwrap();
            }
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn many_additions_and_removals_leave_no_traces() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        max_exemplars: 8,
        ..StoreLimits::default()
    };
    let mut store = open_with(&folder, limits);
    let keys = ["a", "b", "c"];
    let mut last_ids = [None; 3];
    for round in 0..2_000_usize {
        let key_idx = round % keys.len();
        let key = keys[key_idx];
        let id = store.add(key, vec![new("p", "a")]).unwrap().ids[0];
        assert!(last_ids[key_idx].is_none_or(|last| id > last));
        last_ids[key_idx] = Some(id);
        match round % 10 {
            3 => assert!(store.remove_key(key).unwrap()),
            5 | 8 => assert!(store.remove(key, id).unwrap()),
            _ => assert_eq!(ids(&store, key).last(), Some(&id)),
        }
        assert!(ids(&store, key).len() <= 8);
    }
    let before = contents(store.groups());
    let num_files = names(&folder).len();
    assert_eq!(num_files, store.num_keys() + 1);
    drop(store);
    assert_eq!(contents(open(&folder).groups()), before);
}

#[derive(Debug, Clone)]
enum Change {
    Add(usize, Vec<(String, String)>),
    Remove(usize, usize),
    RemoveKey(usize),
    Reopen,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let text = "[a-c\"\\\\\u{0}é\n]{0,8}";
    let texts = (text, text).prop_filter("not blank", |(prompt, answer)| {
        !(prompt.trim().is_empty() && answer.trim().is_empty())
    });
    let change = prop_oneof![
        4 => (0..KEYS.len(), prop::collection::vec(texts, 0..6))
            .prop_map(|(key_idx, new)| Change::Add(key_idx, new)),
        3 => (0..KEYS.len(), 0_usize..5).prop_map(|(key_idx, nth)| Change::Remove(key_idx, nth)),
        1 => (0..KEYS.len()).prop_map(Change::RemoveKey),
        1 => Just(Change::Reopen),
    ];
    prop::collection::vec(change, 1..24)
}

const KEYS: [&str; 3] = ["a", "ä/..", "c c"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_with_limits(changes in changes()) {
        let limits = StoreLimits { max_keys: 2, max_exemplars: 4, max_bytes: 40, max_key_bytes: 8 };
        let folder = tempfile::tempdir().unwrap();
        let mut store = open_with(&folder, limits);
        let mut model: BTreeMap<String, Vec<Exemplar>> = BTreeMap::new();
        // The largest id that each key has had.
        let mut used: BTreeMap<String, u64> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Add(key_idx, texts) => {
                    let key = KEYS[key_idx];
                    let new = texts.iter().map(|(prompt, answer)| new(prompt, answer)).collect();
                    let added = store.add(key, new);
                    if texts.is_empty() {
                        prop_assert_eq!(added.unwrap(), Added::default());
                    } else if !model.contains_key(key) && model.len() == 2 {
                        let is_refused = matches!(added, Err(ExemplarStoreError::TooManyKeys { .. }));
                        prop_assert!(is_refused);
                    } else {
                        let added = added.unwrap();
                        prop_assert_eq!(added.ids.len(), texts.len());
                        let group = model.entry(key.to_owned()).or_default();
                        for (&id, (prompt, answer)) in added.ids.iter().zip(texts) {
                            prop_assert!(used.get(key).is_none_or(|&used| id > used));
                            used.insert(key.to_owned(), id);
                            group.push(Exemplar { id, prompt, answer });
                        }
                        let mut num_removed = 0;
                        while group.len() > 4 || group.iter().map(Exemplar::num_bytes).sum::<usize>() > 40 {
                            group.remove(0);
                            num_removed += 1;
                        }
                        prop_assert_eq!(added.num_removed, num_removed);
                    }
                }
                Change::Remove(key_idx, nth) => {
                    let key = KEYS[key_idx];
                    let id = model.get(key).and_then(|group| group.get(nth)).map(|one| one.id);
                    let is_removed = store.remove(key, id.unwrap_or(u64::MAX)).unwrap();
                    prop_assert_eq!(is_removed, id.is_some());
                    if let Some(group) = model.get_mut(key) {
                        group.retain(|one| Some(one.id) != id);
                    }
                    model.retain(|_, group| !group.is_empty());
                }
                Change::RemoveKey(key_idx) => {
                    let key = KEYS[key_idx];
                    prop_assert_eq!(store.remove_key(key).unwrap(), model.remove(key).is_some());
                }
                Change::Reopen => {
                    drop(store);
                    store = open_with(&folder, limits);
                    used.retain(|key, _| model.contains_key(key));
                }
            }
            let expected: Contents = model.clone().into_iter().collect();
            prop_assert_eq!(contents(store.groups()), &expected[..]);
            prop_assert_eq!(read(&folder), expected);
            let num_bytes: usize = model.values().flatten().map(Exemplar::num_bytes).sum();
            prop_assert_eq!((store.num_keys(), store.num_bytes()), (model.len(), num_bytes));
        }
    }
}

/// Adds and removes until the process is killed. Does nothing unless
/// [`acknowledged_exemplars_survive_a_killed_process`] runs it.
#[test]
fn adds_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else {
        return;
    };
    let mut store = ExemplarStore::open(Path::new(&folder), StoreLimits::default()).unwrap();
    loop {
        let id = store.add("a", vec![long_exemplar()]).unwrap().ids[0];
        println!("\nadded {id}");
        store.add("b", vec![new("short-lived", "")]).unwrap();
        store.remove_key("b").unwrap();
    }
}

fn long_exemplar() -> NewExemplar {
    new(&"prompt ".repeat(50), &"answer ".repeat(50))
}

#[test]
fn acknowledged_exemplars_survive_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let (_, module) = module_path!().split_once("::").unwrap();
    let max_exemplars = StoreLimits::default().max_exemplars as u64;
    let mut last_acknowledged = None;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg(format!("{module}::adds_until_it_is_killed"))
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let added = |line: &std::io::Result<String>| -> Option<u64> {
            let line = line.as_ref().unwrap();
            line.strip_prefix("added ").map(|id| id.parse().unwrap())
        };
        // Killed at another moment of an addition or a removal in every round.
        let first = lines.by_ref().filter_map(|line| added(&line)).nth(3);
        assert!(first.is_some(), "the other process has ended");
        std::thread::sleep(Duration::from_micros(round * 7919 % 40_000));
        child.kill().unwrap();
        let last = lines.filter_map(|line| added(&line)).last().or(first);
        child.wait().unwrap();
        assert!(last > last_acknowledged);
        last_acknowledged = last;

        let store = open(&folder);
        let acknowledged = last.unwrap();
        let stored = ids(&store, "a");
        let newest = *stored.last().unwrap();
        // At most the one addition that was not reported yet.
        assert!(newest == acknowledged || newest == acknowledged + 1);
        let oldest = (newest + 1).saturating_sub(max_exemplars);
        assert!(stored.into_iter().eq(oldest..=newest));
        let expected = long_exemplar();
        for exemplar in &store.get("a").unwrap().exemplars {
            assert_eq!(exemplar.prompt, expected.prompt);
            assert_eq!(exemplar.answer, expected.answer);
        }
        for name in names(&folder) {
            assert!(
                name == folder::LOCK_FILE || key_file::is_key_file(&name),
                "{name}"
            );
        }
    }
}
