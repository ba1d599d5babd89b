//! Models from the Hugging Face hub, through the cache that its Python library shares.
//!
//! Only the files that a model is read from are fetched. Offline, only the cache is read; online, the cache is used
//! when the hub cannot be reached.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use crate::error::ModelError;
use crate::files::gguf_parts;
use crate::files::hub_model::{HubModel, is_gguf};
use crate::files::safetensors_folder::{INDEX, WEIGHTS, read_json};

/// Whether the hub may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubAccess {
    /// Missing files are fetched.
    Online,
    /// Only the cache is read.
    CacheOnly,
}

/// Whether a progress bar is drawn on stderr while files are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubProgress {
    /// Nothing is drawn.
    Silent,
    /// One bar a file.
    Bar,
}

/// How to reach the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// Whether the hub may be used.
    pub access: HubAccess,
    /// The folder with one `models--owner--name` for each model.
    pub cache_folder: PathBuf,
    /// The access token for models that require one.
    pub token: Option<String>,
    /// The hub's address.
    pub endpoint: String,
    /// Whether fetching shows its progress.
    pub progress: HubProgress,
}

impl HubOptions {
    /// The values of the usual environment variables: `HF_HUB_OFFLINE`, `HF_HUB_CACHE`, `HF_HOME`,
    /// `HF_TOKEN`, `HF_ENDPOINT`, and the token file that logging in leaves.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let home = match (variable("HF_HOME"), variable("XDG_CACHE_HOME")) {
            (Some(home), _) => PathBuf::from(home),
            (None, Some(cache)) => PathBuf::from(cache).join("huggingface"),
            (None, None) => std::env::home_dir()
                .unwrap_or_default()
                .join(".cache")
                .join("huggingface"),
        };
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| {
            matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on")
        });
        let stored_token = || {
            let token = std::fs::read_to_string(home.join("token")).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        Self {
            access: if offline {
                HubAccess::CacheOnly
            } else {
                HubAccess::Online
            },
            token: variable("HF_TOKEN").or_else(stored_token),
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".to_owned()),
            cache_folder: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            progress: HubProgress::Silent,
        }
    }
}

/// A repository on the hub, and how it is reached.
pub(crate) struct HubRepo<'a> {
    pub(crate) repo: Repo,
    pub(crate) options: &'a HubOptions,
}

impl HubRepo<'_> {
    /// The result of `fetch` if the hub may be used, otherwise that of `cached`; `cached` also decides where the hub
    /// fails, unless the error `is_final`.
    pub(crate) fn fetch_or_cached<T, E: std::error::Error>(
        &self,
        fetch: impl FnOnce(&Self) -> Result<T, E>,
        cached: impl FnOnce(&Self) -> Result<T, E>,
        is_final: impl FnOnce(&E) -> bool,
    ) -> Result<T, E> {
        if self.options.access == HubAccess::CacheOnly {
            return cached(self);
        }
        let error = match fetch(self) {
            Err(error) if !is_final(&error) => error,
            fetched => return fetched,
        };
        let Ok(found) = cached(self) else {
            return Err(error);
        };
        tracing::warn!(repo = self.repo.url(), %error, "the hub does not answer; using the cache");
        Ok(found)
    }

    /// The folder of the revision in the cache, whole or not. A revision is a branch or a tag, which the cache
    /// translates to a commit, or a commit.
    pub(crate) fn snapshot(&self) -> Option<PathBuf> {
        let repo = self.options.cache_folder.join(self.repo.folder_name());
        let reference = repo.join("refs").join(self.repo.revision());
        let commit = std::fs::read_to_string(reference);
        let commit = commit.unwrap_or_else(|_| self.repo.revision().to_owned());
        let folder = repo.join("snapshots").join(commit.trim());
        folder.is_dir().then_some(folder)
    }

    /// Fetches files that the cache lacks.
    pub(crate) fn api(&self) -> Result<ApiRepo, ApiError> {
        let options = self.options;
        let api = ApiBuilder::from_cache(Cache::new(options.cache_folder.clone()))
            .with_endpoint(options.endpoint.clone())
            .with_token(options.token.clone())
            .with_progress(options.progress == HubProgress::Bar)
            .build()?;
        Ok(api.repo(self.repo.clone()))
    }
}

/// The files of a repository on the hub.
pub(crate) fn file_names(api: &ApiRepo) -> Result<Vec<String>, ApiError> {
    let files = api.info()?.siblings.into_iter();
    Ok(files.map(|file| file.rfilename).collect())
}

/// The folder or the GGUF file of a model, fetched if it has to be and may be.
///
/// # Errors
/// When the cache lacks the model and the hub may not be used, or does not provide it.
pub(crate) fn resolve(model: &HubModel, options: &HubOptions) -> Result<PathBuf, ModelError> {
    let repo = HubRepo {
        repo: Repo::with_revision(
            model.id().to_owned(),
            RepoType::Model,
            model.revision().to_owned(),
        ),
        options,
    };
    repo.fetch_or_cached(
        |repo| fetch(model, repo),
        |repo| cached(model, repo),
        |error| matches!(error, ModelError::HubNoWeights { .. }),
    )
}

const FILES_AROUND_WEIGHTS: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

fn cached(model: &HubModel, repo: &HubRepo<'_>) -> Result<PathBuf, ModelError> {
    let missing = || ModelError::HubNotCached {
        model: model.clone(),
        cache_folder: repo.options.cache_folder.clone(),
    };
    let folder = repo.snapshot().ok_or_else(missing)?;
    let Some(file) = model.file() else {
        let weights = needed_weights(&folder)?.ok_or_else(missing)?;
        let mut needed = weights.iter().map(String::as_str).chain(["config.json"]);
        let whole = needed.all(|file| folder.join(file).exists());
        return if whole { Ok(folder) } else { Err(missing()) };
    };
    let parts = gguf_parts::all_parts(file);
    if parts.iter().all(|part| folder.join(part).exists()) {
        Ok(folder.join(file))
    } else {
        Err(missing())
    }
}

/// The weight files that a folder should have; `None` when it has neither weights nor an index.
fn needed_weights(folder: &Path) -> Result<Option<Vec<String>>, ModelError> {
    if folder.join(WEIGHTS).exists() {
        return Ok(Some(vec![WEIGHTS.to_owned()]));
    }
    Ok(read_json(&folder.join(INDEX))?.map(|index| shards(&index)))
}

/// The shards an index names; names that are not plain file names are left for the reader to refuse.
fn shards(index: &Value) -> Vec<String> {
    let named = index["weight_map"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.values());
    let mut shards: Vec<String> = named
        .filter_map(|shard| shard.as_str().map(str::to_owned))
        .collect();
    shards.sort();
    shards.dedup();
    shards.retain(|shard| !shard.contains(['/', '\\']) && shard != "..");
    shards
}

fn fetch(model: &HubModel, repo: &HubRepo<'_>) -> Result<PathBuf, ModelError> {
    let failed = |source| ModelError::HubRequest {
        model: model.clone(),
        endpoint: repo.options.endpoint.clone(),
        source: Box::new(source),
    };
    let repo = repo.api().map_err(failed)?;
    if let Some(file) = model.file() {
        for part in gguf_parts::all_parts(file) {
            repo.get(&part).map_err(failed)?;
        }
        return repo.get(file).map_err(failed);
    }
    let available = file_names(&repo).map_err(failed)?;
    let has = |file: &str| available.iter().any(|available| available == file);
    if !has(WEIGHTS) && !has(INDEX) {
        let mut gguf_files: Vec<String> = available
            .iter()
            .filter(|file| is_gguf(Path::new(file)))
            .cloned()
            .collect();
        gguf_files.sort();
        return Err(ModelError::HubNoWeights {
            model: model.clone(),
            gguf_files,
        });
    }
    for file in FILES_AROUND_WEIGHTS.into_iter().filter(|file| has(file)) {
        repo.get(file).map_err(failed)?;
    }
    let first = if has(WEIGHTS) { WEIGHTS } else { INDEX };
    let first = repo.get(first).map_err(failed)?;
    if !has(WEIGHTS) {
        fetch_shards(&repo, &first, failed)?;
    }
    first
        .parent()
        .map(PathBuf::from)
        .ok_or_else(|| ModelError::ModelMissing {
            path: first.clone(),
        })
}

fn fetch_shards(
    repo: &ApiRepo,
    index: &Path,
    failed: impl Fn(ApiError) -> ModelError,
) -> Result<(), ModelError> {
    let index = read_json(index)?.unwrap_or_default();
    for shard in shards(&index) {
        repo.get(&shard).map_err(&failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic_file;
    use crate::files::source::ModelSource;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn model(text: &str) -> HubModel {
        match ModelSource::find(text).unwrap() {
            ModelSource::Hub(model) => model,
            other => panic!("{other:?}"),
        }
    }

    fn cache_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        let repo = cache.path().join("models--owner--name");
        let put = |path: &Path, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            atomic_file::write(path, text.as_bytes()).unwrap();
        };
        put(&repo.join("refs").join("main"), COMMIT);
        for (file, text) in files {
            put(&repo.join("snapshots").join(COMMIT).join(file), text);
        }
        cache
    }

    fn offline(cache: &tempfile::TempDir) -> HubOptions {
        HubOptions {
            access: HubAccess::CacheOnly,
            cache_folder: cache.path().to_path_buf(),
            token: None,
            endpoint: "http://127.0.0.1:9".to_owned(),
            progress: HubProgress::Silent,
        }
    }

    #[test]
    fn a_cached_model_is_found_by_branch_and_by_commit() {
        let cache = cache_with(&[("config.json", "{}"), (WEIGHTS, "")]);
        let options = offline(&cache);
        let folder = resolve(&model("hf:owner/name"), &options).unwrap();
        assert!(folder.ends_with(COMMIT));
        assert_eq!(
            resolve(&model(&format!("hf:owner/name@{COMMIT}")), &options).unwrap(),
            folder
        );
    }

    #[test]
    fn a_model_that_lacks_a_shard_is_not_in_the_cache() {
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        let cache = cache_with(&[
            ("config.json", "{}"),
            (INDEX, index),
            ("one.safetensors", ""),
        ]);
        let missing = resolve(&model("hf:owner/name"), &offline(&cache));
        assert!(
            matches!(missing, Err(ModelError::HubNotCached { .. })),
            "{missing:?}"
        );

        let cache = cache_with(&[
            ("config.json", "{}"),
            (INDEX, index),
            ("one.safetensors", ""),
            ("two.safetensors", ""),
        ]);
        resolve(&model("hf:owner/name"), &offline(&cache)).unwrap();
    }

    #[test]
    fn one_gguf_file_may_be_named() {
        let cache = cache_with(&[("q4.gguf", "")]);
        let found = resolve(&model("hf:owner/name:q4.gguf"), &offline(&cache)).unwrap();
        assert!(found.ends_with("q4.gguf"));
        let missing = resolve(&model("hf:owner/name:q8.gguf"), &offline(&cache)).unwrap_err();
        assert!(
            missing.to_string().contains("hf:owner/name:q8.gguf"),
            "{missing}"
        );
    }

    #[test]
    fn a_gguf_file_in_parts_needs_all_of_them() {
        let (first, second) = ("q4-00001-of-00002.gguf", "q4-00002-of-00002.gguf");
        let found = |files: &[(&str, &str)]| {
            let named = model(&format!("hf:owner/name:{first}"));
            resolve(&named, &offline(&cache_with(files)))
        };
        assert!(found(&[(first, "")]).is_err());
        assert!(
            found(&[(first, ""), (second, "")])
                .unwrap()
                .ends_with(first)
        );
    }

    #[test]
    fn a_model_that_was_never_fetched_is_an_error_that_says_what_to_do() {
        let cache = cache_with(&[]);
        let missing = resolve(&model("hf:other/model@v2"), &offline(&cache))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("hf:other/model@v2"), "{missing}");
        assert!(missing.contains("HF_HUB_OFFLINE"), "{missing}");
    }

    #[test]
    fn the_cache_is_used_when_the_hub_cannot_be_reached() {
        let cache = cache_with(&[("config.json", "{}"), (WEIGHTS, "")]);
        let options = HubOptions {
            access: HubAccess::Online,
            ..offline(&cache)
        };
        assert!(
            resolve(&model("hf:owner/name"), &options)
                .unwrap()
                .ends_with(COMMIT)
        );
        let error = resolve(&model("hf:other/model"), &options).unwrap_err();
        assert!(matches!(error, ModelError::HubRequest { .. }), "{error}");
    }

    #[test]
    fn variables_decide_cache_token_and_access() {
        let set = |pairs: &'static [(&str, &str)]| {
            HubOptions::from_variables(move |name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        let options = set(&[
            ("HF_HOME", "/h"),
            ("HF_TOKEN", "secret"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        assert_eq!(options.cache_folder, Path::new("/h/hub"));
        assert_eq!(options.token.as_deref(), Some("secret"));
        assert_eq!(options.access, HubAccess::CacheOnly);
        let options = set(&[("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(options.cache_folder, Path::new("/x/huggingface/hub"));
        assert_eq!(options.access, HubAccess::Online);
        assert_eq!(
            set(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]).cache_folder,
            Path::new("/c")
        );
    }
}
