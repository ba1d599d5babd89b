//! What each method of a comparison is, and what it is measured against.

use chameleon_hypernet::{ConditionControl, GeneratorKind};
use serde::Serialize;

use crate::{args::CompareMethod, commands::method::HeadMethod, report::Opponent};

/// A head, and whose conditions it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trained {
    pub(super) head: HeadMethod,
    pub(super) control: ConditionControl,
}

/// Whose memory a text is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MemoryControl {
    /// That of its group.
    None,
    /// That of another group, drawn for each text.
    Shuffled,
    /// One for all texts, drawn from all groups.
    Constant,
}

/// The memory that a method puts beside an adapter, if it does.
pub(super) fn memory(method: CompareMethod) -> Option<MemoryControl> {
    match method {
        CompareMethod::LoraMemory | CompareMethod::CoreMemory => Some(MemoryControl::None),
        CompareMethod::LoraMemoryShuffled | CompareMethod::CoreMemoryShuffled => {
            Some(MemoryControl::Shuffled)
        }
        CompareMethod::LoraMemoryConstant | CompareMethod::CoreMemoryConstant => {
            Some(MemoryControl::Constant)
        }
        _ => None,
    }
}

/// The method whose trainings a method uses: its own, or those of the adapter that a memory is put beside.
pub(super) fn adapter_of(method: CompareMethod) -> CompareMethod {
    match method {
        CompareMethod::LoraMemory
        | CompareMethod::LoraMemoryShuffled
        | CompareMethod::LoraMemoryConstant => CompareMethod::Lora,
        CompareMethod::CoreMemory
        | CompareMethod::CoreMemoryShuffled
        | CompareMethod::CoreMemoryConstant => CompareMethod::Core,
        method => method,
    }
}

/// What is trained for a method; the frozen model is not trained at all.
pub(super) fn trained(method: CompareMethod) -> Option<Trained> {
    use CompareMethod as Method;
    // Controls draw another group for every batch: a fixed swap could be learned like the truth.
    let (head, control) = match adapter_of(method) {
        Method::Frozen
        | Method::LoraMemory
        | Method::LoraMemoryShuffled
        | Method::LoraMemoryConstant
        | Method::CoreMemory
        | Method::CoreMemoryShuffled
        | Method::CoreMemoryConstant => return None,
        Method::Lora => (HeadMethod::Lora, ConditionControl::None),
        Method::LoraEqual => (
            HeadMethod::LoraEqual(GeneratorKind::Core),
            ConditionControl::None,
        ),
        Method::LoraEqualDense => (
            HeadMethod::LoraEqual(GeneratorKind::Dense),
            ConditionControl::None,
        ),
        Method::Experts => (HeadMethod::Experts, ConditionControl::None),
        Method::Dense => (HeadMethod::Dense, ConditionControl::None),
        Method::DenseShuffled => (HeadMethod::Dense, ConditionControl::Redrawn),
        Method::DenseConstant => (HeadMethod::Dense, ConditionControl::Constant),
        Method::Core => (HeadMethod::Core, ConditionControl::None),
        Method::CoreShuffled => (HeadMethod::Core, ConditionControl::Redrawn),
        Method::CoreConstant => (HeadMethod::Core, ConditionControl::Constant),
    };
    Some(Trained { head, control })
}

/// What a hypernetwork has to beat, the strictest first; nothing for other methods.
pub(super) fn opponents(method: CompareMethod) -> &'static [(CompareMethod, Opponent)] {
    match method {
        CompareMethod::CoreMemory => &[
            (CompareMethod::LoraEqual, Opponent::Method),
            (CompareMethod::Lora, Opponent::Method),
            (CompareMethod::Dense, Opponent::Method),
            (CompareMethod::CoreMemoryShuffled, Opponent::Control),
            (CompareMethod::CoreMemoryConstant, Opponent::Control),
        ],
        CompareMethod::LoraMemory => &[
            (CompareMethod::Lora, Opponent::Method),
            (CompareMethod::LoraMemoryShuffled, Opponent::Control),
            (CompareMethod::LoraMemoryConstant, Opponent::Control),
        ],
        CompareMethod::Core => &[
            (CompareMethod::LoraEqual, Opponent::Method),
            (CompareMethod::Lora, Opponent::Method),
            (CompareMethod::Dense, Opponent::Method),
            (CompareMethod::CoreShuffled, Opponent::Control),
            (CompareMethod::CoreConstant, Opponent::Control),
        ],
        CompareMethod::Dense => &[
            (CompareMethod::LoraEqualDense, Opponent::Method),
            (CompareMethod::Lora, Opponent::Method),
            (CompareMethod::DenseShuffled, Opponent::Control),
            (CompareMethod::DenseConstant, Opponent::Control),
        ],
        _ => &[],
    }
}

/// The method that a report is about: the best reason to run it.
pub(super) fn headline(methods: &[CompareMethod]) -> Option<CompareMethod> {
    use CompareMethod as Method;
    [
        Method::CoreMemory,
        Method::LoraMemory,
        Method::Core,
        Method::Dense,
    ]
    .into_iter()
    .find(|method| methods.contains(method))
}

/// What the numbers of `method` are differences against.
pub(super) fn baseline(method: CompareMethod, methods: &[CompareMethod]) -> Option<CompareMethod> {
    use CompareMethod as Method;
    let order: &[Method] = match method {
        Method::Dense | Method::DenseShuffled | Method::DenseConstant => {
            &[Method::LoraEqualDense, Method::Lora, Method::Frozen]
        }
        // The memory trains nothing but its gate.
        Method::LoraMemory | Method::LoraMemoryShuffled | Method::LoraMemoryConstant => {
            &[Method::Lora, Method::Frozen]
        }
        _ => &[
            Method::LoraEqual,
            Method::LoraEqualDense,
            Method::Lora,
            Method::Frozen,
        ],
    };
    order
        .iter()
        .copied()
        .find(|baseline| methods.contains(baseline))
        .filter(|&baseline| baseline != method)
}
