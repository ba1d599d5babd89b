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
    /// An adapter that uses exemplars.
    Adapted(Adapted, Exemplars),
}

/// What an adapter does with the exemplars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapted {
    /// Requests attend to them.
    Attention,
    /// So many learned steps.
    Steps(usize),
}

/// Whose exemplars an adapter gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemplars {
    /// The tenant's own.
    Own,
    /// As many of another tenant.
    OtherTenant,
    /// As many, drawn from all tenants.
    AllTenants,
}

impl TenantMethod {
    /// What is compared if nothing is named.
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::Frozen,
            Self::FrozenInContext,
            Self::Copy,
            Self::Lora,
            Self::Adapted(Adapted::Attention, Exemplars::Own),
            Self::Adapted(Adapted::Attention, Exemplars::OtherTenant),
        ]
    }

    /// The training that it uses.
    pub(super) fn needs(self) -> Option<Head> {
        match self {
            Self::Frozen | Self::FrozenInContext | Self::Copy => None,
            Self::Lora | Self::OwnLora => Some(Head::Lora),
            Self::Adapted(Adapted::Attention, _) => Some(Head::Attention),
            Self::Adapted(Adapted::Steps(_), _) => Some(Head::Steps),
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
            Self::Adapted(adapted, exemplars) => {
                match adapted {
                    Adapted::Attention => f.write_str("attention")?,
                    Adapted::Steps(num_steps) => write!(f, "steps-{num_steps}")?,
                }
                f.write_str(exemplars.suffix())
            }
        }
    }
}

impl Exemplars {
    const ALL: [Self; 3] = [Self::OtherTenant, Self::AllTenants, Self::Own];

    /// What follows the name of a method.
    fn suffix(self) -> &'static str {
        match self {
            Self::Own => "",
            Self::OtherTenant => "-other-tenant",
            Self::AllTenants => "-all-tenants",
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
        Ok(match name {
            "frozen" => Self::Frozen,
            "frozen-in-context" => Self::FrozenInContext,
            "copy" => Self::Copy,
            "lora" => Self::Lora,
            "own-lora" => Self::OwnLora,
            _ => {
                let (stem, exemplars) = Exemplars::ALL
                    .into_iter()
                    .find_map(|exemplars| Some((name.strip_suffix(exemplars.suffix())?, exemplars)))
                    .ok_or_else(unknown)?;
                let adapted = match stem.strip_prefix("steps-") {
                    None if stem == "attention" => Adapted::Attention,
                    None => return Err(unknown()),
                    Some(number) => {
                        let number: usize = number.parse().map_err(|_| unknown())?;
                        if !(1..=256).contains(&number) {
                            return Err(unknown());
                        }
                        Adapted::Steps(number)
                    }
                };
                Self::Adapted(adapted, exemplars)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_the_method_that_has_it() {
        let others = [
            TenantMethod::OwnLora,
            TenantMethod::Adapted(Adapted::Steps(8), Exemplars::AllTenants),
        ];
        for method in TenantMethod::defaults().into_iter().chain(others) {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        for name in [
            "steps",
            "steps-0",
            "steps-257",
            "nothing",
            "copy-3",
            "-other-tenant",
        ] {
            assert!(name.parse::<TenantMethod>().is_err(), "{name}");
        }
    }
}
