//! The ways to use a tenant's exemplars, and their controls.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::training::method::{Head, UnknownMethod};

/// One way to answer a tenant's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantMethod {
    /// The model as it is.
    Frozen,
    /// The model as it is, with the exemplars in the prompt.
    FrozenInContext,
    /// The answer of the exemplar with the most similar prompt.
    Copy,
    /// One LoRA over all training tenants.
    Lora,
    /// That LoRA, trained on further by the tenant's exemplars until its best validation loss.
    OwnLora,
    /// So many learned steps on the exemplars.
    Steps(usize),
    /// Learned steps on the exemplars of another tenant.
    OtherTenant(usize),
    /// Learned steps on as many exemplars, drawn from all tenants.
    AllTenants(usize),
}

impl TenantMethod {
    /// What is compared if nothing is named, with this number of learned steps.
    pub fn defaults(num_steps: usize) -> Vec<Self> {
        vec![
            Self::Frozen,
            Self::FrozenInContext,
            Self::Copy,
            Self::Lora,
            Self::Steps(num_steps),
            Self::OtherTenant(num_steps),
        ]
    }

    /// The training that it uses.
    pub(super) fn needs(self) -> Option<Head> {
        match self {
            Self::Frozen | Self::FrozenInContext | Self::Copy => None,
            Self::Lora | Self::OwnLora => Some(Head::Lora),
            Self::Steps(_) | Self::OtherTenant(_) | Self::AllTenants(_) => Some(Head::Steps),
        }
    }

    /// Whether its answers depend on the seed of a training.
    pub(super) fn is_trained(self) -> bool {
        self.needs().is_some()
    }
}

impl fmt::Display for TenantMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => f.write_str("frozen"),
            Self::FrozenInContext => f.write_str("frozen-in-context"),
            Self::Copy => f.write_str("copy"),
            Self::Lora => f.write_str("lora"),
            Self::OwnLora => f.write_str("own-lora"),
            Self::Steps(num_steps) => write!(f, "steps-{num_steps}"),
            Self::OtherTenant(num_steps) => write!(f, "other-tenant-{num_steps}"),
            Self::AllTenants(num_steps) => write!(f, "all-tenants-{num_steps}"),
        }
    }
}

impl Serialize for TenantMethod {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for TenantMethod {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let unknown = || UnknownMethod {
            name: name.to_owned(),
        };
        let counted = |prefix: &str| -> Option<usize> {
            let number = name.strip_prefix(prefix)?.parse().ok()?;
            (1..=256).contains(&number).then_some(number)
        };
        Ok(match name {
            "frozen" => Self::Frozen,
            "frozen-in-context" => Self::FrozenInContext,
            "copy" => Self::Copy,
            "lora" => Self::Lora,
            "own-lora" => Self::OwnLora,
            _ => counted("steps-")
                .map(Self::Steps)
                .or_else(|| counted("other-tenant-").map(Self::OtherTenant))
                .or_else(|| counted("all-tenants-").map(Self::AllTenants))
                .ok_or_else(unknown)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_the_method_that_has_it() {
        let others = [TenantMethod::OwnLora, TenantMethod::AllTenants(8)];
        for method in TenantMethod::defaults(4).into_iter().chain(others) {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        for name in ["steps", "steps-0", "steps-257", "nothing", "copy-3"] {
            assert!(name.parse::<TenantMethod>().is_err(), "{name}");
        }
    }
}
