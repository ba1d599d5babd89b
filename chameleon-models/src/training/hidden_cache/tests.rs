//! The guarantees of the cache: equal states, resumption after an interruption, and validation of the files on disk.

use std::fs;

use proptest::prelude::*;

use super::*;

const BOTH_TYPES: [RowType; 2] = [RowType::F32, RowType::F16];

fn spec(rows_per_example: &[usize], hidden_size: usize, row_type: RowType) -> CacheSpec {
    CacheSpec {
        fingerprint: Fingerprint::builder().part("model", b"tiny").finish(),
        hidden_size,
        row_type,
        rows_per_example: rows_per_example.to_vec(),
    }
}

/// Eight examples of 0.8 MB a pass, so that each pass is a chunk.
fn four_chunks() -> CacheSpec {
    spec(&[200; 30], 1024, RowType::F32)
}

/// Values that differ from row to row and are exact in every type.
fn values_of(example_idx: usize, num_values: usize) -> Vec<f32> {
    (0..num_values)
        .map(|value_idx| ((example_idx * 31 + value_idx * 7) % 200) as f32 / 8.0 - 12.0)
        .collect()
}

fn rows_of(spec: &CacheSpec, examples: Range<usize>) -> Tensor<2> {
    let values = examples
        .flat_map(|idx| values_of(idx, spec.rows_per_example[idx] * spec.hidden_size))
        .collect();
    tensor(values, spec.hidden_size)
}

fn tensor(values: Vec<f32>, hidden_size: usize) -> Tensor<2> {
    let shape = [values.len() / hidden_size, hidden_size];
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// The cache, and the examples that had to be computed.
fn fill(folder: &Path, spec: &CacheSpec) -> (HiddenCache, Vec<usize>) {
    let mut computed = Vec::new();
    let cache = HiddenCache::open_or_fill(folder, spec, |examples, _| {
        computed.extend(examples.clone());
        Some(rows_of(spec, examples))
    });
    (cache.unwrap().unwrap(), computed)
}

fn values(cache: &HiddenCache, example_indices: &[usize]) -> Vec<f32> {
    let rows = cache.gather(example_indices, &Device::flex());
    rows.into_data().try_to_vec().unwrap()
}

fn assert_holds_everything(cache: &HiddenCache, spec: &CacheSpec) {
    for (example_idx, &rows) in spec.rows_per_example.iter().enumerate() {
        let expected = values_of(example_idx, rows * spec.hidden_size);
        assert_eq!(values(cache, &[example_idx]), expected);
    }
}

/// The cache is correct whatever files are in the folder.
fn assert_refilled(folder: &Path, spec: &CacheSpec, expected: Range<usize>) {
    let (cache, computed) = fill(folder, spec);
    assert_eq!(computed, expected.collect::<Vec<_>>());
    assert_holds_everything(&cache, spec);
}

#[test]
fn a_filled_cache_is_read_back_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    for row_type in BOTH_TYPES {
        let path = folder.path().join("parent").join(row_type.to_string());
        let spec = spec(&[3, 0, 1, 5], 4, row_type);
        assert_refilled(&path, &spec, 0..4);
        assert_refilled(&path, &spec, 0..0);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }
}

#[test]
fn examples_without_rows_count() {
    let folder = tempfile::tempdir().unwrap();
    for (name, rows) in [("none", &[][..]), ("empty", &[0]), ("last", &[1, 0, 0])] {
        let spec = spec(rows, 2, RowType::F16);
        assert_refilled(&folder.path().join(name), &spec, 0..rows.len());
    }
}

#[test]
fn rows_come_out_in_the_order_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let spec = four_chunks();
    let (cache, _) = fill(folder.path(), &spec);
    let asked = [29, 0, 15, 16, 0];
    let expected = asked.map(|idx| rows_of(&spec, idx..idx + 1));
    cache
        .gather(&asked, &device)
        .into_data()
        .assert_eq(&Tensor::cat(expected.to_vec(), 0).into_data(), true);
    assert_eq!(cache.gather(&[], &device).dims(), [0, 1024]);
}

#[test]
fn rows_at_the_start_of_each_example_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[3, 4], 2, RowType::F32);
    let (cache, _) = fill(folder.path(), &spec);
    let all = values(&cache, &[1, 0]);
    let cache = cache.without_first(1).without_first(1);
    assert_eq!(values(&cache, &[1, 0]), [&all[4..8], &all[12..]].concat());
}

#[test]
#[should_panic(expected = "example 0 has 3 rows")]
fn an_example_keeps_at_least_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, _) = fill(folder.path(), &spec(&[3, 4], 2, RowType::F32));
    let _ = cache.without_first(3);
}

#[test]
fn an_interrupted_fill_continues_with_the_chunks_that_exist() {
    let folder = tempfile::tempdir().unwrap();
    let spec = four_chunks();
    let mut reported = Vec::new();
    let stopped = HiddenCache::open_or_fill(folder.path(), &spec, |examples, num_done| {
        reported.push(num_done);
        (examples.start < 16).then(|| rows_of(&spec, examples))
    });
    assert!(stopped.unwrap().is_none());
    assert_eq!(reported, [0, 8, 16]);
    // What a process that is killed while it writes leaves behind.
    fs::copy(
        folder.path().join("0-8.safetensors"),
        folder.path().join(".16-24.safetensors.part"),
    )
    .unwrap();
    assert_refilled(folder.path(), &spec, 16..30);
}

#[test]
fn only_a_missing_chunk_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let spec = four_chunks();
    fill(folder.path(), &spec);
    fs::remove_file(folder.path().join("8-16.safetensors")).unwrap();
    let mut reported = Vec::new();
    let cache = HiddenCache::open_or_fill(folder.path(), &spec, |examples, num_done| {
        reported.push((examples.clone(), num_done));
        Some(rows_of(&spec, examples))
    });
    assert_eq!(reported, [(8..16, 22)]);
    assert_holds_everything(&cache.unwrap().unwrap(), &spec);
}

#[test]
fn two_fills_at_once_are_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let spec = four_chunks();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_holds_everything(&fill(folder.path(), &spec).0, &spec));
        }
    });
    assert_refilled(folder.path(), &spec, 0..0);
}

#[test]
fn a_chunk_of_something_else_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let old = spec(&[2, 3], 4, RowType::F32);
    let fingerprint = Fingerprint::builder().part("model", b"other").finish();
    let others = [
        CacheSpec {
            fingerprint,
            ..old.clone()
        },
        spec(&[2, 4], 4, RowType::F32),
        spec(&[2, 3], 8, RowType::F32),
        spec(&[2, 3], 4, RowType::F16),
    ];
    for other in others {
        assert_refilled(folder.path(), &old, 0..2);
        assert_refilled(folder.path(), &other, 0..2);
    }
    // A chunk under the name of another one.
    let spec = four_chunks();
    fill(folder.path(), &spec);
    fs::copy(
        folder.path().join("0-8.safetensors"),
        folder.path().join("8-16.safetensors"),
    )
    .unwrap();
    assert_refilled(folder.path(), &spec, 8..16);
}

#[test]
fn values_that_are_not_finite_are_refused_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[0, 2, 2], 2, RowType::F16);
    for (value, printed) in [(1e6, "1000000"), (f32::NAN, "NaN")] {
        let refused = HiddenCache::open_or_fill(folder.path(), &spec, |_, _| {
            let mut values = vec![1.0; 8];
            values[5] = value;
            Some(tensor(values, 2))
        });
        assert_eq!(
            refused.unwrap_err().to_string(),
            format!("example 2 has the value {printed}, which f16 cannot hold")
        );
    }
    assert_refilled(folder.path(), &spec, 0..3);
}

#[test]
#[should_panic(expected = "rows of examples 0..1")]
fn other_rows_than_announced_are_a_mistake_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[2], 2, RowType::F32);
    let _ = HiddenCache::open_or_fill(folder.path(), &spec, |_, _| Some(tensor(vec![1.0; 3], 3)));
}

#[test]
fn a_file_in_place_of_the_folder_is_an_error_and_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thesis");
    atomic_file::write(&file, b"precious text").unwrap();
    for path in [file.clone(), file.join("states")] {
        let refused = HiddenCache::open_or_fill(&path, &spec(&[1], 2, RowType::F32), |_, _| None);
        let error = refused.unwrap_err();
        assert!(matches!(error, HiddenCacheError::Write { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious text");
}

/// The only chunk of a small cache, its bytes, and the length of its header.
fn small_chunk(folder: &Path, spec: &CacheSpec) -> (PathBuf, Vec<u8>, usize) {
    fill(folder, spec);
    let path = folder.join("0-2.safetensors");
    let bytes = fs::read(&path).unwrap();
    let header_len = SafeTensors::read_metadata(&bytes).unwrap().0;
    (path, bytes, header_len)
}

#[test]
fn a_chunk_cut_anywhere_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[1, 2], 2, RowType::F16);
    let (path, whole, _) = small_chunk(folder.path(), &spec);
    let longer = [&whole[..], &[0]].concat();
    for cut in (0..whole.len())
        .map(|len| &whole[..len])
        .chain([&longer[..]])
    {
        atomic_file::write(&path, cut).unwrap();
        assert_refilled(folder.path(), &spec, 0..2);
    }
}

#[test]
fn a_changed_byte_of_the_header_never_gives_other_rows() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[1, 2], 2, RowType::F32);
    let (path, whole, header_len) = small_chunk(folder.path(), &spec);
    for position in 0..8 + header_len {
        for flip in [0x01, 0x80, 0xFF] {
            let mut changed = whole.clone();
            changed[position] ^= flip;
            atomic_file::write(&path, &changed).unwrap();
            assert_holds_everything(&fill(folder.path(), &spec).0, &spec);
        }
    }
}

#[test]
fn lying_counts_do_not_allocate() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(&[1, 2], 2, RowType::F32);
    let (path, whole, header_len) = small_chunk(folder.path(), &spec);
    let header = std::str::from_utf8(&whole[8..8 + header_len]).unwrap();
    for (told, lie) in [
        ("[3,2]", "[18446744073709551615,2]"),
        ("[3,2]", "[1099511627776,2]"),
        ("[3,2]", "[3,0]"),
        ("[3,2]", "[2,3]"),
        ("[3,2]", "[6]"),
        ("[0,24]", "[0,18446744073709551615]"),
        ("[0,24]", "[24,0]"),
        ("[0,24]", "[8,32]"),
    ] {
        let lying = header.replace(told, lie);
        assert_ne!(lying, header, "{told}");
        let len = (lying.len() as u64).to_le_bytes();
        let bytes = [&len[..], lying.as_bytes(), &whole[8 + header_len..]].concat();
        atomic_file::write(&path, &bytes).unwrap();
        assert_refilled(folder.path(), &spec, 0..2);
    }
    for len in [u64::MAX, 1 << 40, 0] {
        let bytes = [&len.to_le_bytes()[..], &whole[8..]].concat();
        atomic_file::write(&path, &bytes).unwrap();
        assert_refilled(folder.path(), &spec, 0..2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn rows_survive_within_the_precision_of_their_type(
        examples in prop::collection::vec(prop::collection::vec(-60_000.0_f32..60_000.0, 0..40), 1..20),
        hidden_size in 1_usize..6,
        row_type in prop::sample::select(&BOTH_TYPES[..]),
        stop in 0_usize..20,
    ) {
        let examples = examples
            .into_iter()
            .map(|mut values| {
                values.truncate(values.len() / hidden_size * hidden_size);
                values
            })
            .collect::<Vec<_>>();
        let rows = examples.iter().map(|values| values.len() / hidden_size).collect::<Vec<_>>();
        let spec = spec(&rows, hidden_size, row_type);
        let folder = tempfile::tempdir().unwrap();
        let rows = |range: Range<usize>| tensor(examples[range].concat(), hidden_size);
        HiddenCache::open_or_fill(folder.path(), &spec, |range, _| {
            (range.end <= stop).then(|| rows(range))
        })
        .unwrap();
        let cache = HiddenCache::open_or_fill(folder.path(), &spec, |range, _| Some(rows(range)));
        let cache = cache.unwrap().unwrap();
        let all = (0..examples.len()).collect::<Vec<_>>();
        // Relative, and for the subnormal numbers of f16 absolute.
        let (relative, absolute) = match row_type {
            RowType::F32 => (0.0, 0.0),
            RowType::F16 => (2_f32.powi(-11), 2_f32.powi(-25)),
        };
        let (found, expected) = (values(&cache, &all), examples.concat());
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() <= expected.abs() * relative + absolute, "{found} {expected}");
        }
    }
}
