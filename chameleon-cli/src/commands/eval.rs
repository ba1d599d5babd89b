//! `chameleon eval`

use crate::{
    commands::Context,
    errors::{CliError, ExitStatus},
    resolve::EvalConfig,
};

pub(crate) fn run(_config: &EvalConfig, _context: &Context) -> Result<ExitStatus, CliError> {
    Err(CliError::NotYet { command: "eval" })
}
