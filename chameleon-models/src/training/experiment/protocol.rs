//! The baselines and controls of each method of a comparison.

use chameleon_hypernet::{ConditionControl, GeneratorKind};

use crate::training::method::{Head, MemoryControl, Method};

use super::scores::Against;

impl Method {
    /// The baselines and controls without which a gain of this method cannot be claimed.
    pub fn companions(self) -> Vec<Self> {
        let redrawn = |method: Self| match method.memory {
            Some(_) => method.with_memory(MemoryControl::Redrawn),
            None => method.with_control(ConditionControl::Redrawn),
        };
        let constant = |method: Self| match method.memory {
            Some(_) => method.with_memory(MemoryControl::Constant),
            None => method.with_control(ConditionControl::Constant),
        };
        let (plain, is_measured) = match (self.head, self.memory) {
            (Head::Generated(_) | Head::Lora, Some(_)) => {
                (self.with_memory(MemoryControl::None), true)
            }
            (Head::Generated(_), None) => (self.with_control(ConditionControl::None), true),
            _ => (self, false),
        };
        if !is_measured {
            return Vec::new();
        }
        let mut methods = vec![Self::FROZEN, Self::LORA];
        match self.head {
            Head::Generated(GeneratorKind::Core) => methods.push(Self::MATCHED_LORA),
            Head::Generated(_) => methods.push(Self::MATCHED_LORA_DENSE),
            _ => {}
        }
        if self.memory.is_some() && !methods.contains(&plain.adapter()) {
            methods.push(plain.adapter());
        }
        methods.extend([plain, redrawn(plain), constant(plain)]);
        methods
    }

    /// The methods that this one is compared with, the strictest first; empty for baselines and controls.
    pub(crate) fn measured_against(self) -> Vec<(Self, Against)> {
        let companions = self.companions();
        if companions.is_empty() || self.is_control() {
            return Vec::new();
        }
        let mut baselines = Vec::new();
        match self.head {
            Head::Generated(GeneratorKind::Core) => {
                baselines.extend([Self::MATCHED_LORA, Self::LORA, Self::DENSE]);
            }
            Head::Generated(_) => baselines.extend([Self::MATCHED_LORA_DENSE, Self::LORA]),
            _ => baselines.push(Self::LORA),
        }
        let controls = companions.into_iter().filter(|method| method.is_control());
        baselines
            .into_iter()
            .map(|method| (method, Against::Baseline))
            .chain(controls.map(|method| (method, Against::Control)))
            .collect()
    }

    /// The method among `methods` against which the differences of this one are computed.
    pub(crate) fn baseline(self, methods: &[Self]) -> Option<Self> {
        let order: &[Self] = match (self.head, self.memory) {
            (Head::Generated(kind), _) if kind != GeneratorKind::Core => {
                &[Self::MATCHED_LORA_DENSE, Self::LORA, Self::FROZEN]
            }
            // Only the gate of the memory is trained.
            (Head::Lora, Some(_)) => &[Self::LORA, Self::FROZEN],
            _ => &[
                Self::MATCHED_LORA,
                Self::MATCHED_LORA_DENSE,
                Self::LORA,
                Self::FROZEN,
            ],
        };
        order
            .iter()
            .copied()
            .find(|baseline| methods.contains(baseline))
            .filter(|&baseline| baseline != self)
    }
}

/// The method that a report is about.
pub(crate) fn headline(methods: &[Method]) -> Option<Method> {
    [
        Method::CORE.with_memory(MemoryControl::None),
        Method::LORA.with_memory(MemoryControl::None),
        Method::CORE,
        Method::DENSE,
    ]
    .into_iter()
    .find(|method| methods.contains(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(methods: &[Method]) -> String {
        let names: Vec<String> = methods.iter().map(ToString::to_string).collect();
        names.join(" ")
    }

    #[test]
    fn a_hypernetwork_brings_its_lora_and_its_controls() {
        assert_eq!(
            named(&Method::CORE.companions()),
            "frozen lora lora-equal core core-redrawn core-constant"
        );
        assert_eq!(
            named(
                &Method::CORE
                    .with_control(ConditionControl::Constant)
                    .companions()
            ),
            named(&Method::CORE.companions())
        );
        assert_eq!(
            named(
                &Method::CORE
                    .with_memory(MemoryControl::Redrawn)
                    .companions()
            ),
            "frozen lora lora-equal core core-memory core-memory-redrawn core-memory-constant"
        );
        assert_eq!(
            named(&Method::LORA.with_memory(MemoryControl::None).companions()),
            "frozen lora lora-memory lora-memory-redrawn lora-memory-constant"
        );
        assert_eq!(
            named(&Method::DENSE.companions()),
            "frozen lora lora-equal-dense dense dense-redrawn dense-constant"
        );
        assert!(Method::LORA.companions().is_empty());
    }

    #[test]
    fn the_strictest_baseline_comes_first_and_controls_are_measured_by_nobody() {
        let against: Vec<Method> = Method::CORE
            .measured_against()
            .into_iter()
            .map(|(method, _)| method)
            .collect();
        assert_eq!(
            named(&against),
            "lora-equal lora dense core-redrawn core-constant"
        );
        let control = Method::CORE.with_control(ConditionControl::Redrawn);
        assert!(control.measured_against().is_empty());
        let all = Method::ALL;
        assert_eq!(control.baseline(all), Some(Method::MATCHED_LORA));
        assert_eq!(
            Method::DENSE.baseline(all),
            Some(Method::MATCHED_LORA_DENSE)
        );
        assert_eq!(Method::LORA.baseline(all), Some(Method::MATCHED_LORA));
        assert_eq!(Method::MATCHED_LORA.baseline(all), None);
    }
}
