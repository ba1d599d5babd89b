//! `chameleon compare`

use crate::{
    commands::Context,
    errors::{CliError, ExitStatus},
    resolve::CompareConfig,
};

pub(crate) fn run(_config: &CompareConfig, _context: &Context) -> Result<ExitStatus, CliError> {
    Err(CliError::NotYet { command: "compare" })
}
