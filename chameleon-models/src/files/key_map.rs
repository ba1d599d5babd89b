//! From the tensor names of Hugging Face to the fields of a module: renamed, transposed where PyTorch
//! stores `[out, in]`, and applied with a report of what fitted.

use std::collections::HashMap;

use burn::module::Module;
use burn::store::{ApplyError, ModuleSnapshot};
use burn::tensor::{Bytes, DType};
use burn_pack::Tensor as StoredTensor;
use rayon::prelude::*;

/// One row of a family's table of names. `*` stands for a layer index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRule {
    /// The name in the checkpoint.
    pub(crate) stored: &'static str,
    /// The path in the module.
    pub(crate) field: &'static str,
    /// How the file stores it.
    pub(crate) layout: StoredLayout,
    /// Whether the name usually follows the family's prefix.
    pub(crate) prefix: Prefix,
}

impl KeyRule {
    /// The head, which stands outside of the part that the prefix names.
    pub(crate) const HEAD: Self = Self {
        prefix: Prefix::Never,
        ..Self::turned(HEAD_NAME)
    };

    /// The same name on both sides, stored as the module wants it.
    pub(crate) const fn same(name: &'static str) -> Self {
        Self::renamed(name, name)
    }

    /// Another name in the module, stored as it wants it.
    pub(crate) const fn renamed(stored: &'static str, field: &'static str) -> Self {
        Self {
            stored,
            field,
            layout: StoredLayout::Same,
            prefix: Prefix::Usual,
        }
    }

    /// The same name on both sides, stored `[out, in]`.
    pub(crate) const fn turned(name: &'static str) -> Self {
        Self {
            layout: StoredLayout::Transposed,
            ..Self::same(name)
        }
    }
}

const HEAD_NAME: &str = "lm_head.weight";

/// Whether a name usually follows the family's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// `model.` or `transformer.` comes first.
    Usual,
    /// The name stands alone.
    Never,
}

/// How a file stores a tensor, against what the module wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredLayout {
    /// As the module wants it.
    Same,
    /// `[out, in]`, where the module wants `[in, out]`.
    Transposed,
}

/// What a family's import knows about names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyMap {
    /// What some files put before every name, and others leave out.
    pub(crate) optional_prefix: &'static str,
    /// The ordered table of names.
    pub(crate) rules: &'static [KeyRule],
    /// Names that end in one of these hold nothing the module lacks: buffers, and copies of tied weights.
    pub(crate) ignored_endings: &'static [&'static str],
}

/// What became of every tensor; all names are those of the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Tensors that are now in the model.
    pub loaded: Vec<String>,
    /// Tensors the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors of the checkpoint that no part of the model wants.
    pub unused: Vec<String>,
    /// Tensors that are known to hold nothing of their own: buffers, and copies of tied weights.
    pub ignored: Vec<String>,
    /// Tensors of the wrong shape.
    pub misshapen: Vec<Misshapen>,
    /// Tensors that could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// A tensor of the wrong shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// The name in the checkpoint.
    pub name: String,
    /// The shape in the checkpoint.
    pub found: Vec<usize>,
    /// The shape the model expects there.
    pub expected: Vec<usize>,
}

/// A tensor that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The name in the checkpoint.
    pub name: String,
    /// Why not.
    pub reason: String,
}

impl ImportReport {
    /// Whether every tensor of the model was loaded; unused and ignored ones do no harm.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.misshapen.is_empty() && self.unreadable.is_empty()
    }
}

/// Puts the tensors of a checkpoint, named as Hugging Face does and of type f32, into a module.
pub(crate) fn import<M: Module>(
    module: &mut M,
    tensors: Vec<StoredTensor>,
    map: &KeyMap,
) -> ImportReport {
    let mut report = ImportReport::default();
    let mut origins = HashMap::new();
    let mut renamed = Vec::new();
    for tensor in tensors {
        let stored_name = tensor.name.clone();
        if let Some((field, layout)) = map.find(&stored_name) {
            origins.insert(field.clone(), (stored_name, layout));
            renamed.push(for_field(tensor, field, layout));
        } else if map.ignores(&stored_name) {
            report.ignored.push(stored_name);
        } else {
            report.unused.push(stored_name);
        }
    }
    let result = module.apply(renamed, None, None, true);
    let origin = |field: &str| match origins.get(field) {
        Some((name, layout)) => (name.clone(), *layout),
        None => (map.stored_name(field), StoredLayout::Same),
    };
    report.loaded = result.applied.iter().map(|field| origin(field).0).collect();
    report.missing = result
        .missing
        .iter()
        .map(|(field, _)| origin(field).0)
        .collect();
    // A name the table knows, for a field this configuration does not have: a bias, or an untied head.
    report
        .unused
        .extend(result.unused.iter().map(|field| origin(field).0));
    for error in result.errors {
        report.add(error, origin);
    }
    report.unused.sort();
    report
}

impl ImportReport {
    /// The report for a tied model, which is often saved with a copy of the embedding as its head.
    pub(crate) fn ignoring_tied_head(mut self) -> Self {
        if let Some(position) = self.unused.iter().position(|name| name == HEAD_NAME) {
            self.ignored.push(self.unused.remove(position));
        }
        self
    }

    fn add(&mut self, error: ApplyError, origin: impl Fn(&str) -> (String, StoredLayout)) {
        match error {
            ApplyError::ShapeMismatch {
                path,
                expected,
                found,
            } => {
                let (name, layout) = origin(&path);
                let as_stored = |shape: &[usize]| {
                    let mut shape = shape.to_vec();
                    if layout == StoredLayout::Transposed {
                        shape.reverse();
                    }
                    shape
                };
                self.misshapen.push(Misshapen {
                    name,
                    found: as_stored(&found),
                    expected: as_stored(&expected),
                });
            }
            ApplyError::DTypeMismatch { path, found, .. } => {
                self.add_unreadable(&path, format!("it is stored as {found:?}"), origin);
            }
            ApplyError::AdapterError { path, message }
            | ApplyError::LoadError { path, message } => {
                self.add_unreadable(&path, message, origin);
            }
        }
    }

    fn add_unreadable(
        &mut self,
        field: &str,
        reason: String,
        origin: impl Fn(&str) -> (String, StoredLayout),
    ) {
        self.unreadable.push(Unreadable {
            name: origin(field).0,
            reason,
        });
    }
}

impl KeyMap {
    /// The field a stored tensor belongs to.
    fn find(&self, stored_name: &str) -> Option<(String, StoredLayout)> {
        let name = self.without_prefix(stored_name);
        self.rules.iter().find_map(|rule| {
            let layer = matching(rule.stored, name)?;
            Some((rule.field.replace('*', layer), rule.layout))
        })
    }

    /// The name under which a checkpoint would store a field.
    fn stored_name(&self, field: &str) -> String {
        self.rules
            .iter()
            .find_map(|rule| {
                let layer = matching(rule.field, field)?;
                let name = rule.stored.replace('*', layer);
                Some(if rule.prefix == Prefix::Usual {
                    format!("{}{name}", self.optional_prefix)
                } else {
                    name
                })
            })
            .unwrap_or_else(|| field.to_owned())
    }

    fn ignores(&self, stored_name: &str) -> bool {
        self.ignored_endings
            .iter()
            .any(|ending| stored_name.ends_with(ending))
    }

    fn without_prefix<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.optional_prefix).unwrap_or(name)
    }
}

/// The layer index that makes `pattern` equal to `name`; empty for patterns without one.
fn matching<'a>(pattern: &str, name: &'a str) -> Option<&'a str> {
    let Some((head, tail)) = pattern.split_once('*') else {
        return (pattern == name).then_some("");
    };
    let layer = name.strip_prefix(head)?.strip_suffix(tail)?;
    layer
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(layer)
        .filter(|layer| !layer.is_empty())
}

/// The tensor under the name of its field, to be read and turned only when the module asks for it.
fn for_field(tensor: StoredTensor, field: String, layout: StoredLayout) -> StoredTensor {
    let named = |mut tensor: StoredTensor| {
        tensor.name.clone_from(&field);
        tensor
    };
    let &[num_rows, num_columns] = &tensor.shape[..] else {
        return named(tensor);
    };
    if layout == StoredLayout::Same || tensor.dtype != DType::F32 {
        return named(tensor);
    }
    let byte_len = tensor.byte_len();
    StoredTensor::deferred(
        field,
        DType::F32,
        vec![num_columns, num_rows],
        None,
        byte_len,
        move || {
            let bytes = tensor.to_bytes()?;
            Ok(transposed(&bytes, num_rows, num_columns))
        },
    )
}

/// The transpose of a row-major f32 matrix.
fn transposed(bytes: &[u8], num_rows: usize, num_columns: usize) -> Bytes {
    const VALUE: usize = size_of::<f32>();
    /// Columns of the source go in strips, so that a cache line of it is used whole.
    const STRIP: usize = 16;
    let value_at = |row: usize, column: usize| {
        let start = (row * num_columns + column) * VALUE;
        bytes.get(start..start + VALUE).map_or(0.0, |value| {
            f32::from_le_bytes([value[0], value[1], value[2], value[3]])
        })
    };
    let mut values = vec![0.0_f32; num_rows * num_columns];
    values
        .par_chunks_mut(STRIP * num_rows)
        .enumerate()
        .for_each(|(strip_idx, strip)| {
            let first_column = strip_idx * STRIP;
            for row in 0..num_rows {
                for (offset, target) in strip.chunks_exact_mut(num_rows).enumerate() {
                    target[row] = value_at(row, first_column + offset);
                }
            }
        });
    Bytes::from_elems(values)
}
