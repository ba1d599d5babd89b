//! What the cache promises: equal answers, continuing after a kill, and suspicion of what lies on disk.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};

use burn::tensor::Tolerance;
use proptest::prelude::*;

use super::*;

const ALL_TYPES: [RowType; 3] = [RowType::F32, RowType::F16, RowType::Bf16];

fn spec(rows_per_example: &[usize], hidden_size: usize, dtype: RowType) -> CacheSpec {
    CacheSpec {
        fingerprint: Fingerprint::builder().part("model", b"tiny").finish(),
        hidden_size,
        dtype,
        rows_per_example: rows_per_example.to_vec(),
    }
}

/// Values that differ from row to row and are exact in every type.
fn values_of(example_idx: usize, num_values: usize) -> Vec<f32> {
    (0..num_values)
        .map(|value_idx| ((example_idx * 31 + value_idx * 7) % 200) as f32 / 8.0 - 12.0)
        .collect()
}

fn writer_for(path: &Path, spec: &CacheSpec) -> CacheWriter {
    match HiddenCache::open_or_create(path, spec).unwrap() {
        OpenedCache::Fill(writer) => writer,
        OpenedCache::Ready(_) => panic!("the cache is finished"),
    }
}

fn append_next(writer: &mut CacheWriter, spec: &CacheSpec) {
    let example_idx = writer.num_written();
    let num_values = spec.rows_per_example[example_idx] * spec.hidden_size;
    writer
        .append_values(&values_of(example_idx, num_values), spec.hidden_size)
        .unwrap();
}

fn fill(mut writer: CacheWriter, spec: &CacheSpec) -> HiddenCache {
    while writer.num_written() < writer.num_examples() {
        append_next(&mut writer, spec);
    }
    writer.finish().unwrap()
}

fn assert_holds_everything(cache: &HiddenCache, spec: &CacheSpec) {
    let mut start = 0;
    for (example_idx, &rows) in spec.rows_per_example.iter().enumerate() {
        assert_eq!(cache.example_rows(example_idx), start..start + rows);
        let mut values = Vec::new();
        cache
            .read_rows(start..start + rows, &mut Vec::new(), &mut values)
            .unwrap();
        assert_eq!(values, values_of(example_idx, rows * spec.hidden_size));
        start += rows;
    }
    assert_eq!(cache.num_rows(), start);
}

fn change(path: &Path, position: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(position)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_filled_cache_is_read_back_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in ALL_TYPES {
        let path = folder.path().join(dtype.to_string());
        let spec = spec(&[3, 0, 1, 5], 4, dtype);
        let writer = writer_for(&path, &spec);
        assert_eq!((writer.num_written(), writer.discarded()), (0, None));
        let finished_bytes = writer.finished_bytes();
        let cache = fill(writer, &spec);
        assert_holds_everything(&cache, &spec);
        assert_eq!(fs::metadata(&path).unwrap().len(), finished_bytes);
        match HiddenCache::open_or_create(&path, &spec).unwrap() {
            OpenedCache::Ready(cache) => assert_holds_everything(&cache, &spec),
            OpenedCache::Fill(_) => panic!("not found again"),
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn examples_without_rows_count() {
    let folder = tempfile::tempdir().unwrap();
    for (name, rows) in [("none", &[][..]), ("empty", &[0]), ("last", &[1, 0, 0])] {
        let spec = spec(rows, 2, RowType::F16);
        let cache = fill(writer_for(&folder.path().join(name), &spec), &spec);
        assert_holds_everything(&cache, &spec);
    }
}

#[test]
fn tensors_go_in_and_come_out_in_the_order_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let spec = spec(&[2, 1], 3, RowType::Bf16);
    let mut writer = writer_for(&folder.path().join("states"), &spec);
    let first = Tensor::<2>::from_data([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
    let second = Tensor::<2>::from_data([[7.0_f32, 8.0, 9.0]], &device);
    writer.append(first.clone()).unwrap();
    writer.append(second.clone()).unwrap();
    let cache = writer.finish().unwrap();
    let expect = |found: Tensor<2>, expected: Tensor<2>| {
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::default());
    };
    expect(
        cache.gather(&[1, 0], &device).unwrap(),
        Tensor::cat(vec![second, first.clone()], 0),
    );
    expect(
        cache.rows(1..2, &device).unwrap(),
        first.slice([1..2, 0..3]),
    );
    assert_eq!(cache.gather(&[], &device).unwrap().dims(), [0, 3]);
}

#[test]
fn rows_at_the_start_of_each_example_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let spec = spec(&[3, 4], 2, RowType::F32);
    let cache = fill(writer_for(&folder.path().join("states"), &spec), &spec);
    let all = cache.gather(&[1, 0], &device).unwrap();
    let cache = cache.without_first(1).without_first(1);
    assert_eq!([0, 1].map(|idx| cache.example_rows(idx)), [2..3, 5..7]);
    let found = cache.gather(&[1, 0], &device).unwrap();
    let expected = Tensor::cat(vec![all.clone().slice([2..4]), all.slice([6..7])], 0);
    found.into_data().assert_eq(&expected.into_data(), true);
}

#[test]
#[should_panic(expected = "example 0 has 3 rows")]
fn an_example_keeps_at_least_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[3, 4], 2, RowType::F32);
    let cache = fill(writer_for(&folder.path().join("states"), &spec), &spec);
    let _ = cache.without_first(3);
}

#[test]
fn a_killed_process_loses_at_most_a_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    // 0.8 MB an example, so that five fill a chunk.
    let spec = spec(&[200; 12], 1024, RowType::F32);
    let mut writer = writer_for(&path, &spec);
    for _ in 0..8 {
        append_next(&mut writer, &spec);
    }
    // What is on the disk now is what a kill leaves: no destructor runs.
    let copy = folder.path().join("copy");
    fs::copy(
        folder.path().join("states.partial"),
        folder.path().join("copy.partial"),
    )
    .unwrap();
    let resumed = writer_for(&copy, &spec);
    assert_eq!(resumed.discarded(), None);
    assert!(
        (5..=8).contains(&resumed.num_written()),
        "{}",
        resumed.num_written()
    );
    assert_holds_everything(&fill(resumed, &spec), &spec);

    // An ordinary exit loses nothing.
    drop(writer);
    assert_eq!(writer_for(&path, &spec).num_written(), 8);
}

#[test]
fn rows_behind_the_journal_are_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[2, 2, 2], 4, RowType::F16);
    let mut writer = writer_for(&path, &spec);
    append_next(&mut writer, &spec);
    drop(writer);
    let mut partial = OpenOptions::new()
        .append(true)
        .open(folder.path().join("states.partial"))
        .unwrap();
    partial.write_all(&[0xAB; 1000]).unwrap();
    let writer = writer_for(&path, &spec);
    assert_eq!(writer.num_written(), 1);
    assert_holds_everything(&fill(writer, &spec), &spec);
}

#[test]
fn another_fingerprint_or_other_rows_are_made_anew_and_the_old_stay_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let old = spec(&[2, 3], 4, RowType::F32);
    fill(writer_for(&path, &old), &old);

    let mut changed = old.clone();
    changed.fingerprint = Fingerprint::builder().part("model", b"other").finish();
    let writer = writer_for(&path, &changed);
    assert!(matches!(
        writer.discarded(),
        Some(CacheDefect::Fingerprint { .. })
    ));
    drop(writer);
    assert_holds_everything(&HiddenCache::open(&path).unwrap(), &old);
    assert_holds_everything(&fill(writer_for(&path, &changed), &changed), &changed);

    let mut changed_rows = changed.clone();
    changed_rows.rows_per_example = vec![2, 4];
    let writer = writer_for(&path, &changed_rows);
    assert_eq!(
        writer.discarded().unwrap().to_string(),
        "it holds other rows: 2 examples, 5 rows of 4 f32, expected 2 examples, 6 rows of 4 f32"
    );
}

#[test]
fn a_partial_file_of_something_else_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let old = spec(&[2, 3], 4, RowType::F32);
    let mut writer = writer_for(&path, &old);
    append_next(&mut writer, &old);
    drop(writer);
    let new = spec(&[2, 3], 4, RowType::Bf16);
    let writer = writer_for(&path, &new);
    assert_eq!(writer.num_written(), 0);
    assert!(matches!(
        writer.discarded(),
        Some(CacheDefect::Contents { .. })
    ));
    assert_holds_everything(&fill(writer, &new), &new);
}

#[test]
fn files_of_another_kind_are_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[1], 2, RowType::F32);
    for (name, existing) in [("thesis", "thesis"), ("states", "states.partial")] {
        let file = folder.path().join(existing);
        File::create(&file)
            .unwrap()
            .write_all(b"precious text")
            .unwrap();
        let error = HiddenCache::open_or_create(&folder.path().join(name), &spec).unwrap_err();
        assert!(
            matches!(error, HiddenCacheError::NotACache { .. }),
            "{error}"
        );
        assert_eq!(fs::read(&file).unwrap(), b"precious text");
    }
}

#[test]
fn two_writers_do_not_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[1], 2, RowType::F32);
    let writer = writer_for(&path, &spec);
    let error = HiddenCache::open_or_create(&path, &spec).unwrap_err();
    assert!(matches!(error, HiddenCacheError::Busy { .. }), "{error}");
    drop(writer);
    assert!(HiddenCache::open_or_create(&path, &spec).is_ok());
}

#[test]
fn wrong_rows_are_refused_and_may_be_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[2], 2, RowType::F16);
    let mut writer = writer_for(&folder.path().join("states"), &spec);
    let refused = |result: Result<(), HiddenCacheError>| result.unwrap_err().to_string();
    assert_eq!(
        refused(writer.append_values(&[1.0; 3], 3)),
        "example 0 has 3 values, expected 2 rows of 2"
    );
    assert_eq!(
        refused(writer.append_values(&[1.0, 1e6, 1.0, 1.0], 2)),
        "example 0 has the value 1000000, which f16 cannot hold"
    );
    assert_eq!(
        refused(writer.append_values(&[1.0, 1.0, f32::NAN, 1.0], 2)),
        "example 0 has the value NaN, which f16 cannot hold"
    );
    writer.append_values(&[1.0, 2.0, 3.0, 4.0], 2).unwrap();
    assert_eq!(
        refused(writer.append_values(&[1.0; 4], 2)),
        "the cache is for 1 examples and has them all"
    );
    let cache = writer.finish().unwrap();
    let mut values = Vec::new();
    cache.read_rows(0..2, &mut Vec::new(), &mut values).unwrap();
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn an_unfinished_cache_cannot_be_finished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[2, 2], 2, RowType::F32);
    let mut writer = writer_for(&path, &spec);
    append_next(&mut writer, &spec);
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), "1 of 2 examples are in the cache");
    assert!(!path.exists());
    assert_eq!(writer_for(&path, &spec).num_written(), 1);
}

#[test]
fn discarding_removes_the_partial_file_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[2, 2], 2, RowType::F32);
    let mut writer = writer_for(&path, &spec);
    append_next(&mut writer, &spec);
    File::create(folder.path().join("other")).unwrap();
    writer.discard();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn sizes_past_any_file_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    for rows in [vec![usize::MAX], vec![usize::MAX / 2; 4], vec![1 << 60]] {
        let error = HiddenCache::open_or_create(&path, &spec(&rows, 64, RowType::F32)).unwrap_err();
        assert!(matches!(error, HiddenCacheError::TooLarge { .. }));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_a_clean_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/such/states");
    let error = HiddenCache::open_or_create(&path, &spec(&[1], 2, RowType::F32)).unwrap_err();
    assert!(matches!(error, HiddenCacheError::Write { .. }), "{error}");
}

/// Opening says a defect, and filling anew works.
fn assert_rebuilt(path: &Path, spec: &CacheSpec) {
    assert!(HiddenCache::open(path).is_err());
    let writer = writer_for(path, spec);
    assert!(writer.discarded().is_some());
    assert_holds_everything(&fill(writer, spec), spec);
}

#[test]
fn a_cache_cut_anywhere_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[1, 2], 2, RowType::F16);
    let len = writer_for(&path, &spec).finished_bytes();
    fill(writer_for(&path, &spec), &spec);
    for cut in (8..len).chain([len + 1]) {
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(cut)
            .unwrap();
        assert_rebuilt(&path, &spec);
    }
}

#[test]
fn a_partial_file_cut_anywhere_is_continued_or_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let partial = folder.path().join("states.partial");
    let spec = spec(&[1, 2, 1], 2, RowType::F16);
    let mut writer = writer_for(&path, &spec);
    append_next(&mut writer, &spec);
    append_next(&mut writer, &spec);
    drop(writer);
    let whole = fs::read(&partial).unwrap();
    for cut in (0..=whole.len()).filter(|cut| !(1..8).contains(cut)) {
        File::create(&partial)
            .unwrap()
            .write_all(&whole[..cut])
            .unwrap();
        let writer = writer_for(&path, &spec);
        assert_eq!(writer.num_written(), if cut == whole.len() { 2 } else { 0 });
        assert_holds_everything(&fill(writer, &spec), &spec);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn every_changed_byte_of_header_and_table_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[1, 2], 2, RowType::F32);
    fill(writer_for(&path, &spec), &spec);
    let sound = fs::read(&path).unwrap();
    for (position, &byte) in sound.iter().enumerate().take(128 + 3 * 8) {
        for flip in [0x01, 0x80, 0xFF] {
            change(&path, position as u64, &[byte ^ flip]);
            let opened = HiddenCache::open(&path);
            assert!(opened.is_err(), "byte {position} ^ {flip}");
            change(&path, position as u64, &[byte]);
        }
    }
    assert!(HiddenCache::open(&path).is_ok());
}

#[test]
fn lying_counts_do_not_allocate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[1, 2], 2, RowType::F32);
    fill(writer_for(&path, &spec), &spec);
    let sound = fs::read(&path).unwrap();
    for (hidden_size, num_examples, num_rows) in [
        (u64::MAX, 2, 3),
        (0, 2, 3),
        (2, u64::MAX, 3),
        (2, 1 << 40, 3),
        (2, 2, u64::MAX),
        (2, 2, 1 << 50),
        (1 << 32, 2, 1 << 32),
        (2, 3, 3),
        (2, 1, 3),
        (2, 0, 0),
    ] {
        let mut lying = sound.clone();
        for (start, count) in [(48, hidden_size), (56, num_examples), (64, num_rows)] {
            lying[start..start + 8].copy_from_slice(&count.to_le_bytes());
        }
        let table_len = usize::try_from(num_examples).map_or(0, |len| len.saturating_add(1));
        let table_end = table_len
            .saturating_mul(8)
            .saturating_add(128)
            .min(lying.len());
        let sum = format::checksum(&[&lying[..72], &lying[128..table_end]]);
        lying[88..96].copy_from_slice(&sum.to_le_bytes());
        File::create(&path).unwrap().write_all(&lying).unwrap();
        assert_rebuilt(&path, &spec);
    }
}

#[test]
fn a_file_truncated_while_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let spec = spec(&[4], 2, RowType::F32);
    let cache = fill(writer_for(&path, &spec), &spec);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(200)
        .unwrap();
    let error = cache.rows(0..4, &Device::flex()).unwrap_err();
    assert!(matches!(error, HiddenCacheError::Read { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn rows_survive_within_the_precision_of_their_type(
        examples in prop::collection::vec(prop::collection::vec(-60_000.0_f32..60_000.0, 0..40), 1..8),
        hidden_size in 1_usize..6,
        dtype in prop::sample::select(&ALL_TYPES[..]),
        stops in prop::collection::vec(0_usize..8, 0..3),
    ) {
        let examples = examples
            .into_iter()
            .map(|mut values| {
                values.truncate(values.len() / hidden_size * hidden_size);
                values
            })
            .collect::<Vec<_>>();
        let rows = examples.iter().map(|values| values.len() / hidden_size).collect::<Vec<_>>();
        let spec = spec(&rows, hidden_size, dtype);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("states");
        let mut writer = writer_for(&path, &spec);
        while writer.num_written() < examples.len() {
            if stops.contains(&writer.num_written()) {
                let before = writer.num_written();
                drop(writer);
                writer = writer_for(&path, &spec);
                prop_assert_eq!(writer.num_written(), before);
            }
            writer.append_values(&examples[writer.num_written()], hidden_size).unwrap();
        }
        let cache = writer.finish().unwrap();
        let mut found = Vec::new();
        cache.read_rows(0..cache.num_rows(), &mut Vec::new(), &mut found).unwrap();
        // Relative, and for the subnormal numbers of f16 absolute.
        let (relative, absolute) = match dtype {
            RowType::F32 => (0.0, 0.0),
            RowType::F16 => (2_f32.powi(-11), 2_f32.powi(-25)),
            RowType::Bf16 => (2_f32.powi(-8), 0.0),
        };
        let expected = examples.concat();
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() <= expected.abs() * relative + absolute, "{found} {expected}");
        }
    }
}
