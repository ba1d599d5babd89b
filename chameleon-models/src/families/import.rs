//! From the tensors of a checkpoint to the fields of a module, with a report of what fitted.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::Module;
use burn::store::{ApplyError, ModuleSnapshot};
use burn::tensor::{Bytes, DType};
use burn_pack::Tensor as StoredTensor;

use crate::families::language_model::LanguageModel;
use crate::files::checkpoint::Checkpoint;
use crate::files::name_table::{Layout, NameTable};
use crate::files::tensor_info::TensorInfo;

/// What became of every tensor; names are those of Hugging Face.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Tensors that are now in the model.
    pub loaded: Vec<String>,
    /// Tensors the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors of the checkpoint that the model does not have.
    pub unused: Vec<String>,
    /// Tensors that hold no weights of their own: buffers, and copies of tied weights.
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
    /// The shape in the checkpoint, `[out, in]` for a linear layer of Hugging Face.
    pub found: Vec<usize>,
    /// The shape the model expects there.
    pub expected: Vec<usize>,
}

/// A tensor that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The name in the checkpoint.
    pub name: String,
    /// The cause.
    pub reason: String,
}

impl ImportReport {
    /// Whether every tensor of the model was loaded; unused and ignored ones do no harm.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.misshapen.is_empty() && self.unreadable.is_empty()
    }
}

const HEAD: &str = "lm_head.weight";

impl LanguageModel {
    /// Reads the weights of a checkpoint.
    ///
    /// Whatever does not fit is named in the report, and leaves that part of the model as it was.
    pub fn import(&mut self, checkpoint: &Checkpoint) -> ImportReport {
        self.import_except(checkpoint, &BTreeSet::new())
    }

    /// Like [`import`](Self::import), without some tensors of the checkpoint.
    pub(crate) fn import_except(
        &mut self,
        checkpoint: &Checkpoint,
        left_out: &BTreeSet<String>,
    ) -> ImportReport {
        let is_tied = self.lm_head.is_none();
        let names = checkpoint.architecture().names();
        let mut report = import(self, names, checkpoint, left_out);
        let (head_name, _) = names.of_field(HEAD).expect("every family names its head");
        // A tied model is often saved with a copy of the embedding as its head.
        let head = report.unused.iter().position(|name| *name == head_name);
        if let Some(position) = head.filter(|_| is_tied) {
            report.ignored.push(report.unused.remove(position));
        }
        report
    }
}

fn import<M: Module>(
    module: &mut M,
    names: &NameTable,
    checkpoint: &Checkpoint,
    left_out: &BTreeSet<String>,
) -> ImportReport {
    let mut report = ImportReport {
        ignored: checkpoint.buffers().to_vec(),
        ..ImportReport::default()
    };
    let mut fields = Vec::new();
    let source = Arc::new(checkpoint.clone());
    for (name, info) in checkpoint.tensors() {
        match checkpoint.field(name) {
            _ if left_out.contains(name) => {}
            None => report.unused.push(name.to_owned()),
            Some(field) => fields.push(deferred(&source, name, field, info)),
        }
    }
    let result = module.apply(fields, None, None, true);
    let name = |field: &String| match names.of_field(field) {
        Some((name, _)) => name,
        None => field.clone(),
    };
    report.loaded = result.applied.iter().map(name).collect();
    report.missing = result
        .missing
        .iter()
        .map(|(field, _)| name(field))
        .collect();
    // The table has names for which this configuration has no field: a bias, or the head of a tied model.
    report.unused.extend(result.unused.iter().map(name));
    report.unused.sort();
    for error in result.errors {
        report.add(error, names);
    }
    report
}

/// A tensor under the path of its field, to be read when the module loads it.
fn deferred(
    checkpoint: &Arc<Checkpoint>,
    name: &str,
    field: &str,
    info: &TensorInfo,
) -> StoredTensor {
    let (source, name) = (Arc::clone(checkpoint), name.to_owned());
    let num_bytes = info.shape.iter().product::<usize>() * size_of::<f32>();
    let read = move || match source.read_f32(&name) {
        Ok(values) => Ok(Bytes::from_elems(values)),
        Err(error) => Err(burn_pack::Error::IoError(error.to_string())),
    };
    let shape = info.shape.clone();
    StoredTensor::deferred(field.to_owned(), DType::F32, shape, None, num_bytes, read)
}

impl ImportReport {
    fn add(&mut self, error: ApplyError, names: &NameTable) {
        let (field, reason) = match error {
            ApplyError::ShapeMismatch {
                path,
                expected,
                found,
            } => {
                let (name, layout) = names.of_field(&path).unwrap_or((path, Layout::Same));
                let is_transposed =
                    matches!(layout, Layout::Linear | Layout::Rotary(_) | Layout::ByHead);
                let as_stored = |shape: &[usize]| {
                    let mut shape = shape.to_vec();
                    if is_transposed {
                        shape.reverse();
                    }
                    shape
                };
                self.misshapen.push(Misshapen {
                    name,
                    found: as_stored(&found),
                    expected: as_stored(&expected),
                });
                return;
            }
            ApplyError::DTypeMismatch { path, found, .. } => {
                (path, format!("it is stored as {found:?}"))
            }
            ApplyError::AdapterError { path, message }
            | ApplyError::LoadError { path, message } => (path, message),
        };
        let name = names.of_field(&field).map_or(field, |(name, _)| name);
        self.unreadable.push(Unreadable { name, reason });
    }
}
