//! From the inputs of a training to its trainer: which objective an adapter has.

use crate::adapter::adaptation::AdapterModule;
use crate::training::causal_objective::CausalObjective;
use crate::training::error::TrainingError;
use crate::training::exemplar_objective::ExemplarObjective;
use crate::training::setup::TrainSetup;
use crate::training::train::{Cursor, Objective, Trainer};

impl<'a> TrainSetup<'a> {
    /// A training before its first step.
    ///
    /// # Errors
    ///
    /// When exemplars are used and the examples have no keys.
    pub fn trainer(self, module: AdapterModule) -> Result<Trainer<'a>, TrainingError> {
        let schedule = self.options.schedule(self.seed);
        Ok(Trainer::new(self.objective(&module)?, schedule, module))
    }

    /// A training that continues where another one stopped; see [`Trainer::resume`].
    ///
    /// # Errors
    ///
    /// When the optimizer's state cannot be read, `cursor` is not a position of this training, or exemplars are used and
    /// the examples have no keys.
    pub fn resume(
        self,
        module: AdapterModule,
        optimizer_state: Vec<u8>,
        cursor: Cursor,
    ) -> Result<Trainer<'a>, TrainingError> {
        let schedule = self.options.schedule(self.seed);
        let objective = self.objective(&module)?;
        let trainer = Trainer::resume(objective, schedule, module, optimizer_state, cursor)?;
        Ok(trainer)
    }

    fn objective(self, module: &AdapterModule) -> Result<Box<dyn Objective + 'a>, TrainingError> {
        Ok(match self.exemplars {
            Some(how) => Box::new(ExemplarObjective::new(self, how, module)?),
            None => Box::new(CausalObjective::new(self, module)),
        })
    }
}
