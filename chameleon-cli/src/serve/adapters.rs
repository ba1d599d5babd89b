//! `/v1/adapters`: loading and unloading while the server runs, out of one folder and no other.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{Path as UrlPath, Request, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use burn::tensor::Tensor;
use chameleon_models::{Adapter, AdapterError, MemoryDescription, engine::AdapterInfo};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    blocking::compute,
    body,
    clusters::map_of,
    error::{ApiError, json as respond_json},
    models::unreadable,
    state::{Server, unix_seconds},
};
use crate::{commands::adapter, errors::CliError};

/// What is known of a loaded adapter besides what the engine knows.
#[derive(Debug)]
pub(crate) struct AdapterRecord {
    /// Seconds since 1970 when it was loaded.
    pub(crate) created: u64,
    /// Where in the folder of adapters it came from.
    path: Option<String>,
    /// `[clusters][hidden]`
    pub(crate) centroids: Vec<Vec<f32>>,
    /// The centroids on a plane, for those who draw them.
    pub(crate) map: Vec<[f32; 2]>,
}

/// The folder out of which clients may load.
#[derive(Debug)]
pub(crate) struct AdapterFolder {
    /// Without symbolic links.
    root: PathBuf,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadRequest {
    name: String,
    path: String,
}

/// `GET /v1/adapters`
pub(crate) async fn list(State(server): State<Arc<Server>>) -> Response {
    let infos = server.engine.adapters();
    let data: Vec<Value> = infos.iter().map(|info| describe(&server, info)).collect();
    respond_json(StatusCode::OK, &json!({"object": "list", "data": data}))
}

/// `POST /v1/adapters`
pub(crate) async fn load(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let asked: LoadRequest = body::read(request, server.limits.max_body_bytes).await?;
    if server.is_draining() {
        return Err(ApiError::draining());
    }
    let described = compute(&server, move |server| {
        let folder = server.adapter_folder.as_ref().ok_or_else(|| {
            ApiError::new(
                StatusCode::FORBIDDEN,
                "loading_forbidden",
                "this server was started without `--adapter-dir`",
            )
        })?;
        let path = folder.find(&asked.path)?;
        let adapter = adapter::load(&path, server.engine.model(), server.memory)
            .map_err(|error| folder.refused(&error))?;
        server.add_adapter(&asked.name, adapter, Some(asked.path))?;
        let infos = server.engine.adapters();
        let info = infos.iter().find(|info| info.name == asked.name);
        // Somebody may have taken it away again in the meantime.
        Ok(info.map_or(Value::Null, |info| describe(server, info)))
    })
    .await?;
    Ok(respond_json(StatusCode::CREATED, &described))
}

/// `DELETE /v1/adapters/{name}`
pub(crate) async fn unload(
    State(server): State<Arc<Server>>,
    name: Result<UrlPath<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let UrlPath(name) = name.map_err(|_| unreadable())?;
    server
        .remove_adapter(&name)
        .map_err(|error| error.about("name"))?;
    Ok(respond_json(
        StatusCode::OK,
        &json!({"id": name, "object": "adapter", "deleted": true}),
    ))
}

fn describe(server: &Server, info: &AdapterInfo) -> Value {
    let records = server.adapters();
    let record = records.get(&info.name);
    json!({
        "id": info.name,
        "object": "adapter",
        "created": record.map_or(server.created, |record| record.created),
        "model": format!("{}:{}", server.name, info.name),
        "path": record.and_then(|record| record.path.as_deref()),
        "condition": info.condition.to_string(),
        "num_clusters": info.num_clusters,
        "prefix": info.prefix,
        "memory": info.memory.as_ref().map(describe_memory),
        "num_requests": info.num_requests,
    })
}

fn describe_memory(memory: &MemoryDescription) -> Value {
    json!({
        "num_entries": memory.num_entries,
        "num_bytes": memory.num_bytes(),
    })
}

impl AdapterRecord {
    pub(crate) fn new(adapter: &Adapter, path: Option<String>) -> Self {
        let centroids = rows(&adapter.centroids);
        Self {
            created: unix_seconds(),
            path,
            map: map_of(&adapter.centroids),
            centroids,
        }
    }
}

fn rows(centroids: &Tensor<2>) -> Vec<Vec<f32>> {
    let [_, hidden_size] = centroids.dims();
    let values: Vec<f32> = centroids
        .clone()
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .expect("the data was just converted to f32");
    values.chunks(hidden_size).map(<[f32]>::to_vec).collect()
}

impl AdapterFolder {
    pub(crate) fn open(folder: &Path) -> Result<Self, CliError> {
        match folder.canonicalize() {
            Ok(root) if root.is_dir() => Ok(Self { root }),
            Ok(root) => Err(CliError::AdapterDir {
                path: root,
                source: io::ErrorKind::NotADirectory.into(),
            }),
            Err(source) => Err(CliError::AdapterDir {
                path: folder.to_owned(),
                source,
            }),
        }
    }

    /// An adapter's folder inside this one. What leads out of it is as good as not there.
    fn find(&self, path: &str) -> Result<PathBuf, ApiError> {
        let path = Path::new(path);
        let is_inside = path.components().next().is_some()
            && path
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
            && !path.as_os_str().as_encoded_bytes().contains(&0);
        if !is_inside {
            return Err(ApiError::invalid(
                "path",
                "expected a path inside the folder of adapters: relative, without `..`",
            ));
        }
        let found = self.inside(&self.root.join(path))?;
        // The files may be links as well, and must be files: opening a pipe would wait for ever.
        for entry in ["adapter_config.json", "adapter.safetensors"] {
            if !self.inside(&found.join(entry))?.is_file() {
                return Err(missing());
            }
        }
        let memory = found.join("memory.safetensors");
        if memory.symlink_metadata().is_ok() && !self.inside(&memory)?.is_file() {
            return Err(missing());
        }
        Ok(found)
    }

    fn inside(&self, path: &Path) -> Result<PathBuf, ApiError> {
        let path = path.canonicalize().map_err(|_| missing())?;
        if path.starts_with(&self.root) {
            Ok(path)
        } else {
            Err(missing())
        }
    }

    /// Why an adapter cannot be loaded, without telling where the folder is.
    fn refused(&self, error: &AdapterError) -> ApiError {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let root = format!("{}{}", self.root.display(), std::path::MAIN_SEPARATOR);
        let message = message.replace(&root, "");
        let (status, code) = match error {
            AdapterError::OtherBase { .. } => (StatusCode::CONFLICT, "wrong_base"),
            _ => (StatusCode::BAD_REQUEST, "broken_adapter"),
        };
        ApiError::new(status, code, message).about("path")
    }
}

fn missing() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "adapter_not_found",
        "there is no adapter at this path in the folder of adapters",
    )
    .about("path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter_in(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["adapter_config.json", "adapter.safetensors"] {
            std::fs::File::create(folder.join(name)).unwrap();
        }
    }

    #[test]
    fn only_what_lies_inside_is_found() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("adapters");
        adapter_in(&root.join("law"));
        adapter_in(&outer.path().join("secret"));
        let folder = AdapterFolder::open(&root).unwrap();
        assert!(folder.find("law").is_ok());
        let absolute = outer.path().join("secret");
        for path in [
            "",
            ".",
            "/",
            "..",
            "../secret",
            "law/../../secret",
            "law/..",
            "./law",
            absolute.to_str().unwrap(),
            "law\0",
            "\0",
            "none",
            "law/adapter_config.json",
            &"a/".repeat(5000),
        ] {
            assert!(folder.find(path).is_err(), "{path:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("adapters");
        let secret = outer.path().join("secret");
        adapter_in(&root.join("law"));
        adapter_in(&secret);
        std::os::unix::fs::symlink(&secret, root.join("link")).unwrap();
        let half = root.join("half");
        std::fs::create_dir(&half).unwrap();
        for name in ["adapter_config.json", "adapter.safetensors"] {
            std::os::unix::fs::symlink(secret.join(name), half.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("law"), root.join("same")).unwrap();
        let folder = AdapterFolder::open(&root).unwrap();
        assert!(folder.find("link").is_err());
        assert!(folder.find("half").is_err());
        assert_eq!(folder.find("same"), folder.find("law"));
    }
}
