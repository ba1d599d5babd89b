//! `chameleon serve`: an HTTP server for a model and its adapters.

use std::{sync::Arc, time::Duration};

use burn::module::Module as _;
use chameleon_models::engine::{Engine, EngineOptions};
use serde::Serialize;

use crate::{
    commands::{Context, adapter},
    errors::{CliError, ExitStatus},
    interrupt::Interrupt,
    output::{Page, Results},
    resolve::ServeConfig,
    serve::{Access, Ended, Listening, Server, ServerParts, router},
};

/// Interval between checks for an interrupt.
const LOOK_AT_INTERRUPT: Duration = Duration::from_millis(50);
/// Threads for connections; computation has its own.
const NUM_THREADS: usize = 2;

pub(crate) fn run(config: &ServeConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NUM_THREADS)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    // Before the model is loaded, which may take long, so that a port in use is reported at once.
    let cannot_listen = |source| CliError::Listen {
        address: config.listen,
        source,
    };
    let listening = runtime
        .block_on(Listening::open(config.listen))
        .map_err(cannot_listen)?;
    let address = listening.address().map_err(cannot_listen)?;
    let server = Arc::new(server(config, context)?);
    context.output.results(&Started {
        address: format!("http://{address}"),
        model: &config.name,
        adapters: server.adapters().keys().cloned().collect(),
    })?;
    let router = router(&server);
    let stop = asked_to_stop(context.interrupt.clone());
    let ended = runtime.block_on(listening.serve(server, router, stop));
    // Aborted requests must not delay the exit.
    runtime.shutdown_background();
    Ok(match ended {
        Ended::AllAnswered => ExitStatus::Done,
        Ended::SomeCutOff => {
            context
                .output
                .warn("some answers took longer than `--drain-timeout` and were cut off");
            ExitStatus::CheckFailed
        }
    })
}

/// The output once the server accepts requests.
#[derive(Debug, Serialize)]
struct Started<'a> {
    address: String,
    model: &'a str,
    adapters: Vec<String>,
}

impl Results for Started<'_> {
    fn write_text(&self, page: &mut Page) {
        page.line(format_args!("serving {} at {}", self.model, self.address));
        for adapter in &self.adapters {
            page.line(format_args!("adapted {}:{adapter}", self.model));
        }
    }
}

fn server(config: &ServeConfig, context: &Context) -> Result<Server, CliError> {
    let mut loaded = context.load_model(&config.model)?;
    loaded.model = loaded.model.no_grad();
    let limits = &config.limits;
    let options = EngineOptions {
        max_batch_rows: limits.max_batch,
        max_cached_tokens: limits.max_cached_tokens,
        max_queued_requests: limits.max_queued,
        ..EngineOptions::default()
    };
    let adapters = config
        .adapters
        .iter()
        .map(|named| {
            let adapter = adapter::load(&named.folder, &loaded, config.memory)?;
            Ok((named, adapter))
        })
        .collect::<Result<Vec<_>, CliError>>()?;
    let engine = Engine::start(loaded, options)?;
    let server = Server::new(ServerParts {
        engine,
        name: config.name.clone(),
        adapter_dir: config.adapter_dir.clone(),
        memory: config.memory,
        access: access(config),
        limits: limits.clone(),
        seed: context.settings.seed,
        prompt_log: config.prompt_log,
        remembers_answers: config.remembers_answers,
    })?;
    for (named, adapter) in adapters {
        server
            .add_adapter(&named.name, adapter, &named.folder, None)
            .map_err(|refused| CliError::AdapterRefused {
                name: named.name.clone(),
                reason: refused.message,
            })?;
    }
    Ok(server)
}

fn access(config: &ServeConfig) -> Access {
    if !config.api_keys.is_empty() {
        Access::Keys(config.api_keys.clone())
    } else if config.listen.ip().is_loopback() {
        Access::Loopback
    } else {
        Access::Everybody
    }
}

async fn asked_to_stop(interrupt: Interrupt) {
    while !interrupt.is_asked() {
        tokio::time::sleep(LOOK_AT_INTERRUPT).await;
    }
}
