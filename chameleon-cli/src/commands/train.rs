//! `chameleon train`

use crate::{
    commands::Context,
    errors::{CliError, ExitStatus},
    resolve::TrainConfig,
};

pub(crate) fn run(_config: &TrainConfig, _context: &Context) -> Result<ExitStatus, CliError> {
    Err(CliError::NotYet { command: "train" })
}
