//! What to do about the errors of the libraries.

use std::borrow::Cow;

use chameleon_cluster::ClusterError;
use chameleon_core::device::DeviceError;
use chameleon_models::ModelError;
use chameleon_models::adapter::{AdapterError, ImpossibleAdapter, MemoryError};
use chameleon_models::data::{DataError, HubDatasetError};
use chameleon_models::engine::EngineError;
use chameleon_models::training::{HiddenCacheError, TrainError, TrainingError};

const OTHER_BASE: &str =
    "give `--model` the model it was trained on, or train an adapter for this one";
const OTHER_TOKENIZER: &str =
    "the tokenizer belongs to another model; use the one that came with this model";
const DISK: &str = "check the permissions and the free space on the disk";

pub(super) fn device(error: &DeviceError) -> Option<Cow<'static, str>> {
    Some(match error {
        DeviceError::Unknown { .. } => "name one of these with `--device`".into(),
        DeviceError::NotCompiled { backend, .. } => {
            format!("build with `--features {backend}`, or name one of these with `--device`")
                .into()
        }
        DeviceError::BadIndex { .. } => {
            "write the device as a name, a colon and a number, such as `wgpu:1`".into()
        }
        DeviceError::NoSuchIndex { backend, .. } => format!("write `--device {backend}`").into(),
        DeviceError::NoBackend => "build with `--features flex`".into(),
        _ => return None,
    })
}

pub(super) fn cluster(error: &ClusterError) -> Cow<'static, str> {
    match error {
        ClusterError::TooManyClusters { num_points, .. } => {
            format!("make `--clusters` {num_points} or less, or use more data").into()
        }
        _ => "make `--clusters` smaller".into(),
    }
}

fn impossible_adapter(error: &ImpossibleAdapter) -> Cow<'static, str> {
    match error {
        ImpossibleAdapter::MemoryAboveAdapted {
            layer_idx,
            first_adapted,
        } => format!(
            "adapt only layers from {layer_idx} on with `--layers`, or give `--memory-layer` {first_adapted} or less"
        )
        .into(),
        _ => "choose `--rank`, `--clusters` and `--hidden-sizes` to fit the model".into(),
    }
}

pub(super) fn scored_field(flag: &str, error: &DataError) -> Cow<'static, str> {
    match error {
        DataError::FieldMissing { .. } | DataError::FieldKind { .. } => {
            format!("name the right field with `{flag}`").into()
        }
        error => data(error).into(),
    }
}

pub(super) fn training(error: &TrainingError) -> Option<Cow<'static, str>> {
    let help = match error {
        TrainingError::Cluster(error) => return Some(cluster(error)),
        TrainingError::ImpossibleAdapter(error) => return Some(impossible_adapter(error)),
        TrainingError::Model(error) => model(error)?,
        TrainingError::Adapter(error) => adapter(error)?,
        TrainingError::Data(error) => data(error),
        TrainingError::Memory(error) => memory(error),
        TrainingError::Train(error) => train_step(error),
        TrainingError::HiddenCache(error) => hidden_cache(error),
        TrainingError::Hypernet(_) => "choose other sizes for the adapter",
        TrainingError::HubDataset(HubDatasetError::Checksum { .. }) => {
            "remove the file, so that it is downloaded again"
        }
        TrainingError::HubDataset(_) => {
            "name local data with `--data`, or check the network and `HF_ENDPOINT`"
        }
        TrainingError::File { .. } => DISK,
        TrainingError::Exists { .. } => {
            "continue with `--resume`, or name another folder with `--out`"
        }
        TrainingError::OtherRun { .. } => {
            "repeat the flags and data it was made with, or name another folder with `--out`"
        }
        TrainingError::NothingToResume { .. } => "leave `--resume` out to start from the beginning",
        TrainingError::RunRecord { .. } => {
            "remove the folder that holds it; `--resume` repeats that run"
        }
        TrainingError::AllDiverged { .. } => "give `--lr` smaller values",
        TrainingError::NothingScored { .. } => "use more or longer rows",
        TrainingError::OneBatch => "make `--batch-size` smaller, or use more rows",
        TrainingError::NoParquet { .. } => "name the data with `--data`",
        _ => return None,
    };
    Some(help.into())
}

fn memory(error: &MemoryError) -> &'static str {
    match error {
        MemoryError::EmptyGroup { .. } => "make `--clusters` smaller",
        _ => "choose another `--memory-layer`",
    }
}

fn train_step(error: &TrainError) -> &'static str {
    match error {
        TrainError::Diverged { .. } => "make `--lr` smaller; the last checkpoint is kept",
        _ => "the training state is damaged; start again in another folder",
    }
}

fn hidden_cache(error: &HiddenCacheError) -> &'static str {
    match error {
        HiddenCacheError::NotFinite { .. } => {
            "the model computes infinite or undefined values; download it again"
        }
        _ => "name another folder with `--cache-dir`",
    }
}

pub(super) fn adapter(error: &AdapterError) -> Option<&'static str> {
    Some(match error {
        AdapterError::OtherBase { .. } => OTHER_BASE,
        AdapterError::Read { .. } => "name a folder that `chameleon train` wrote",
        AdapterError::Version { .. } => "use the version of chameleon that wrote it",
        AdapterError::Config { .. }
        | AdapterError::Impossible { .. }
        | AdapterError::Tensors { .. }
        | AdapterError::Mismatch { .. }
        | AdapterError::NotFinite { .. } => "the folder is damaged; train the adapter again",
        AdapterError::Write(error) => return model(error),
        AdapterError::CreateFolder { .. } | AdapterError::Remove { .. } => DISK,
        AdapterError::Target(_) => "name some of these with `--targets`",
        _ => return None,
    })
}

pub(super) fn model(error: &ModelError) -> Option<&'static str> {
    Some(match error {
        ModelError::NotAModelSource { .. } | ModelError::ModelMissing { .. } => {
            "give `--model` a folder, a .gguf file or a hub id such as `HuggingFaceTB/SmolLM2-135M`"
        }
        ModelError::LfsPointer { .. } => "run `git lfs pull` in its folder, or download the file",
        ModelError::OtherFolder { .. } => {
            "name the folder of the base model; older weights are converted by loading and saving them with transformers"
        }
        ModelError::FileOfFolder { .. } => "name the folder that holds the file",
        ModelError::TokenWithoutRow { .. } => {
            "leave the token out of the text; the model was never trained on it"
        }
        ModelError::Config { .. } => "use a model that needs none of what is not supported",
        ModelError::FolderIncomplete { .. } => {
            "a model folder has config.json, model.safetensors and tokenizer.json"
        }
        ModelError::Truncated { .. } | ModelError::TensorOutsideFile { .. } => {
            "the file was cut off; download it again"
        }
        ModelError::NotGguf { .. }
        | ModelError::Safetensors { .. }
        | ModelError::NonFinite { .. }
        | ModelError::TensorsOverlap { .. }
        | ModelError::ImpossibleShape { .. } => "the file is damaged; download it again",
        ModelError::PartMissing { .. } => "put all parts into one folder",
        ModelError::UnsupportedDtype { .. } => "use a file in one of these formats",
        ModelError::VocabTooLarge { .. } => OTHER_TOKENIZER,
        ModelError::TooManyPositions { .. } => "make `--context` or `--seq-len` smaller",
        ModelError::UnsupportedArchitecture { .. } => {
            "check with `chameleon info --model ..` whether a model can be used"
        }
        ModelError::Write { .. } => {
            "check the permissions and the free space; the previous file is unchanged"
        }
        // These messages contain the help themselves.
        ModelError::HubNotCached { .. }
        | ModelError::HubRequest { .. }
        | ModelError::HubNoWeights { .. } => return None,
        _ => "check what `--model` names, or download the model again",
    })
}

pub(super) fn refusal(refusal: &EngineError) -> Option<&'static str> {
    Some(match refusal {
        EngineError::PromptTooLong { .. } => "shorten the prompt",
        EngineError::TooManyTokens { .. } => "shorten the prompt or ask for fewer tokens",
        EngineError::NoExemplarUse { .. } => {
            "train one with `--method attention --group-field NAME`"
        }
        EngineError::Exemplars { .. } => DISK,
        EngineError::EmptyStop => "give `--stop` a text",
        EngineError::WrongBase { .. } => OTHER_BASE,
        EngineError::UnknownToken { .. } => OTHER_TOKENIZER,
        _ => return None,
    })
}

pub(super) fn data(error: &DataError) -> &'static str {
    match error {
        DataError::Read { .. } | DataError::NotAFile { .. } => "check the path and its permissions",
        DataError::InvalidUtf8 { .. }
        | DataError::Utf16 { .. }
        | DataError::ColumnNotUtf8 { .. } => "save the text as UTF-8",
        DataError::EmptyCorpus { .. } => "name a file or folder with text in it",
        DataError::FieldMissing { .. } | DataError::FieldKind { .. } => {
            "name the right field with `--text-field`"
        }
        DataError::NoChatTemplate { .. } => "use a chat model, or name another field",
        DataError::Chat { .. } | DataError::ChatRewritten { .. } => {
            "the roles may be in an order that the model's chat template does not support"
        }
        DataError::NoRecords { .. } => "name a .parquet, .csv, .tsv, .jsonl or .json file",
        DataError::RaggedRow { .. } => {
            "put quotes around fields that contain the delimiter or a line break"
        }
        DataError::BrokenTable { .. } => {
            "the file is damaged or cut off; download or write it again"
        }
        DataError::RecordTooLarge { .. } => {
            "look for a quote or bracket that is never closed; otherwise cut the text into rows"
        }
        DataError::LabelMissing { .. } => {
            "name the right field with `--label-field`, or leave it out"
        }
        DataError::BrokenJson { .. }
        | DataError::BrokenArray { .. }
        | DataError::NotAnObject { .. } => {
            "a .jsonl file has one object per line, a .json file one array of objects"
        }
        DataError::NoExamples { .. } => "make `--prefix` smaller, or use longer texts",
        DataError::TooLarge { .. } => "split the data and use a part of it",
        _ => "check what `--data` names",
    }
}
