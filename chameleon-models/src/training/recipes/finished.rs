//! A training of a reproduction that kept an epoch.

use burn::module::Module as _;

use crate::adapter::adaptation::AdapterModule;
use crate::training::error::TrainingError;
use crate::training::fit::{EpochRecord, Fitted, KeptEpoch};
use crate::training::train::TrainError;

/// A training that did not diverge.
pub(super) struct Finished {
    /// The adapter of the kept epoch, off the autodiff device.
    pub(super) module: AdapterModule,
    pub(super) kept: KeptEpoch,
    pub(super) curve: Vec<EpochRecord>,
}

pub(super) fn finished(fitted: Fitted) -> Result<Finished, TrainingError> {
    match (fitted.diverged_at_step, fitted.module, fitted.kept) {
        (Some(step), ..) => Err(TrainError::Diverged { step }.into()),
        (None, Some(module), Some(kept)) => Ok(Finished {
            module: module.valid(),
            kept,
            curve: fitted.curve,
        }),
        (None, ..) => unreachable!("a training that does not diverge keeps an epoch"),
    }
}
