//! Models for the commands: from an argument to a loaded model.

use chameleon_models::{HubAccess, HubOptions, HubProgress, LoadedModel, ModelSource, load_as};

use crate::{commands::Context, errors::CliError, resolve::Network};

impl Context {
    /// Access to the hub.
    pub(crate) fn hub_options(&self) -> HubOptions {
        let mut options = HubOptions::from_env();
        if self.settings.network == Network::Forbidden {
            options.access = HubAccess::CacheOnly;
        }
        if self.output.draws_bars() {
            options.progress = HubProgress::Bar;
        }
        options
    }

    /// Loads a model onto the device of the run.
    pub(crate) fn load_model(&self, text: &str) -> Result<LoadedModel, CliError> {
        let device = self.device()?;
        let source = ModelSource::find(text)?;
        let options = self.hub_options();
        let spinner = self.output.spinner("loading the model");
        let loaded = load_as(self.settings.weights, &source, &options, &device);
        spinner.finish_and_clear();
        let loaded = loaded?;
        for name in &loaded.report.unused {
            self.output
                .detail(format_args!("the tensor `{name}` of the file is not used"));
        }
        Ok(loaded)
    }
}
