//! What to do about the errors of the libraries.

use chameleon_cluster::ClusterError;
use chameleon_core::DeviceError;
use chameleon_models::{
    AdapterError, MemoryError, ModelError, adapter::ImpossibleAdapter, data::DataError,
    engine::Refusal, training::hidden_cache::HiddenCacheError,
};

use crate::resolve::ConfigFileError;

pub(super) fn config_file_help(error: &ConfigFileError) -> Option<String> {
    Some(match error {
        ConfigFileError::Unreadable { .. } => "check the path after `--config`".to_owned(),
        ConfigFileError::NotUtf8 { .. } => "save the file as UTF-8".to_owned(),
        ConfigFileError::Syntax { .. } => {
            "write one `flag = value` a line, texts in quotes, lists in square brackets".to_owned()
        }
        ConfigFileError::UnknownKey {
            nearest: Some(nearest),
            ..
        } => format!("the nearest flag is `{nearest}`"),
        ConfigFileError::UnknownKey { nearest: None, .. } => {
            "keys are the long flags of the command without the dashes; see `--help`".to_owned()
        }
        ConfigFileError::BadValue { .. } => return None,
    })
}

pub(super) fn device_help(error: &DeviceError) -> Option<String> {
    Some(match error {
        DeviceError::Unknown { .. } => "name one of these with `--device`".to_owned(),
        DeviceError::NotCompiled { backend, .. } => {
            format!("build with `--features {backend}`, or name one of these with `--device`")
        }
        DeviceError::BadIndex { .. } => {
            "write the device as a name, a colon and a number, such as `wgpu:1`".to_owned()
        }
        DeviceError::NoSuchIndex { backend, .. } => format!("write `--device {backend}`"),
        DeviceError::NoBackend => "build with `--features flex`".to_owned(),
        _ => return None,
    })
}

pub(super) fn memory_help(error: &MemoryError) -> String {
    match error {
        MemoryError::HiddenCache(error) => cache_help(error),
        MemoryError::EmptyGroup { .. } => "make `--clusters` smaller".to_owned(),
        _ => "choose another `--memory-layer`".to_owned(),
    }
}

pub(super) fn impossible_help(error: &ImpossibleAdapter) -> String {
    match error {
        ImpossibleAdapter::MemoryAboveAdapted {
            layer_idx,
            first_adapted,
        } => format!(
            "adapt only layers from {layer_idx} on with `--layers`, or give `--memory-layer` {first_adapted} or less"
        ),
        _ => "choose `--rank`, `--clusters` and `--hidden-sizes` to fit the model".to_owned(),
    }
}

pub(super) fn cache_help(error: &HiddenCacheError) -> String {
    match error {
        HiddenCacheError::NotFinite { .. } => {
            "the model computes values that are not numbers; fetch it again".to_owned()
        }
        _ => "name another folder with `--cache-dir`".to_owned(),
    }
}

pub(super) fn adapter_help(error: &AdapterError) -> Option<String> {
    Some(match error {
        AdapterError::OtherBase { .. } => {
            "give `--model` the model it was trained on, or train an adapter for this one"
                .to_owned()
        }
        AdapterError::Read { .. } => "`chameleon train` writes such a folder".to_owned(),
        AdapterError::Version { .. } => "use the version of chameleon that wrote it".to_owned(),
        AdapterError::Config { .. }
        | AdapterError::Impossible { .. }
        | AdapterError::Tensors { .. }
        | AdapterError::Mismatch { .. }
        | AdapterError::NotFinite { .. } => {
            "the folder is damaged; train the adapter again".to_owned()
        }
        AdapterError::Write(error) => return model_help(error),
        AdapterError::CreateFolder { .. } | AdapterError::Remove { .. } => {
            "check the rights of the folder and the space on the disk".to_owned()
        }
        AdapterError::Target(_) => "name some of these with `--targets`".to_owned(),
        _ => return None,
    })
}

pub(super) fn model_help(error: &ModelError) -> Option<String> {
    Some(match error {
        ModelError::NotAModelSource { .. } | ModelError::ModelMissing { .. } => {
            "give `--model` a folder, a .gguf file or a hub id such as `HuggingFaceTB/SmolLM2-135M`"
                .to_owned()
        }
        ModelError::FolderIncomplete { .. } => {
            "a model folder has config.json, model.safetensors and tokenizer.json".to_owned()
        }
        ModelError::Truncated { .. } | ModelError::TensorOutsideFile { .. } => {
            "the file was cut off; fetch it again".to_owned()
        }
        ModelError::NotGguf { .. }
        | ModelError::Safetensors { .. }
        | ModelError::NonFinite { .. }
        | ModelError::TensorsOverlap { .. }
        | ModelError::ImpossibleShape { .. } => "the file is damaged; fetch it again".to_owned(),
        ModelError::NothingPacked { .. } => "leave out `--weights packed`".to_owned(),
        ModelError::UnsupportedDtype { .. } => "use a file in one of these formats".to_owned(),
        ModelError::VocabTooLarge { .. } => {
            "the tokenizer is of another model; use the one that came with it".to_owned()
        }
        ModelError::PromptLen { found: 0, .. } => {
            "write something into the prompt; this model cannot begin from nothing".to_owned()
        }
        ModelError::PromptLen { .. } => "shorten the prompt".to_owned(),
        ModelError::UnsupportedArchitecture { .. } => {
            "`chameleon info --model ..` tells whether a model can be used".to_owned()
        }
        ModelError::Write { .. } => {
            "check the free space and the permissions; what was there before is untouched"
                .to_owned()
        }
        // These say themselves what to do.
        ModelError::HubNotCached { .. }
        | ModelError::HubRequest { .. }
        | ModelError::HubNoWeights { .. } => return None,
        _ => "check what `--model` names, or fetch the model again".to_owned(),
    })
}

pub(super) fn refusal_help(refusal: &Refusal) -> Option<String> {
    Some(match refusal {
        Refusal::PromptTooLong { .. } => "shorten the prompt".to_owned(),
        Refusal::TooManyTokens { .. } => "shorten the prompt or ask for fewer tokens".to_owned(),
        Refusal::EmptyStop => "give `--stop` a text".to_owned(),
        Refusal::WrongBase { .. } => {
            "give `--model` the model it was trained on, or train an adapter for this one"
                .to_owned()
        }
        Refusal::UnknownToken { .. } => {
            "the tokenizer is of another model; use the one that came with it".to_owned()
        }
        _ => return None,
    })
}

pub(super) fn data_help(error: &DataError) -> String {
    match error {
        DataError::Read { .. } | DataError::NotAFile { .. } => {
            "check the path and its permissions".to_owned()
        }
        DataError::InvalidUtf8 { .. }
        | DataError::Utf16 { .. }
        | DataError::ColumnNotUtf8 { .. } => "save the text as UTF-8".to_owned(),
        DataError::EmptyCorpus { .. } => "name a file or folder with text in it".to_owned(),
        DataError::FieldMissing { .. } | DataError::FieldKind { .. } => {
            "name the right field with `--text-field`".to_owned()
        }
        DataError::NoChatTemplate { .. } => {
            "take a model that was made for conversations, or name another field".to_owned()
        }
        DataError::Chat { .. } | DataError::ChatRewritten { .. } => {
            "the roles may be in an order that the model does not know".to_owned()
        }
        DataError::NoRecords { .. } => {
            "name a .parquet, .csv, .tsv, .jsonl or .json file".to_owned()
        }
        DataError::RaggedRow { .. } => {
            "put quotes around fields that hold the delimiter or a line break".to_owned()
        }
        DataError::BrokenTable { .. } => {
            "the file is damaged or cut short: fetch or write it again".to_owned()
        }
        DataError::RecordTooLarge { .. } => {
            "a quote or bracket may never be closed; otherwise cut the text into rows".to_owned()
        }
        DataError::LabelMissing { .. } => {
            "name the right field with `--label-field`, or leave it out".to_owned()
        }
        DataError::BrokenJson { .. }
        | DataError::BrokenArray { .. }
        | DataError::NotAnObject { .. } => {
            "a .jsonl has one object a line, a .json one array of objects".to_owned()
        }
        DataError::NoExamples { .. } => "make `--prefix` smaller, or use longer texts".to_owned(),
        DataError::TooLarge { .. } => "split the data and use a part of it".to_owned(),
        _ => "check what `--data` names".to_owned(),
    }
}

pub(super) fn scored_help(flag: &str, error: &DataError) -> String {
    match error {
        DataError::FieldMissing { .. } | DataError::FieldKind { .. } => {
            format!("name the right field with `{flag}`")
        }
        error => data_help(error),
    }
}

pub(super) fn cluster_help(error: &ClusterError) -> String {
    match error {
        ClusterError::TooManyClusters { num_points, .. } => {
            format!("make `--clusters` {num_points} or less, or use more data")
        }
        _ => "give `--clusters` a smaller number".to_owned(),
    }
}
