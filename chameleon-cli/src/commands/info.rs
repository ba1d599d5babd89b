//! `chameleon info`: what this build can use, and what a model or an adapter holds.

use chameleon_core::BackendKind;
use serde::Serialize;

use crate::{
    commands::Context,
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::InfoConfig,
};

pub(crate) fn run(_config: &InfoConfig, context: &Context) -> Result<ExitStatus, CliError> {
    // Opening it is the proof that it works.
    context.device()?;
    let info = Info {
        version: env!("CARGO_PKG_VERSION"),
        burn: BURN_VERSION,
        devices: BackendKind::compiled_in()
            .iter()
            .map(ToString::to_string)
            .collect(),
        device: context.settings.device.to_string(),
    };
    context.output.results(&info)?;
    Ok(ExitStatus::Done)
}

/// The workspace pins Burn exactly, so this cannot drift unseen: a test reads the manifest.
const BURN_VERSION: &str = "0.22.1";

#[derive(Debug, Serialize)]
struct Info {
    version: &'static str,
    burn: &'static str,
    devices: Vec<String>,
    device: String,
}

impl Results for Info {
    fn write_text(&self, page: &mut Page) {
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: &str| table.row([name.to_owned(), value.to_owned()]);
        row("chameleon", self.version);
        row("burn", self.burn);
        row("devices", &self.devices.join(", "));
        row("device", &self.device);
        page.table(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_burn_is_the_one_in_the_manifest() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.contains(&format!("burn = {{ version = \"={BURN_VERSION}\"")));
    }
}
