//! Errors of a model's configuration.

/// A model configuration that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value has the wrong type.
    #[error("`{key}` is {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The expected type.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// A list has another length than the model needs.
    #[error("`{key}` has {found} values, expected {expected}")]
    WrongLength {
        /// The key.
        key: &'static str,
        /// How many values it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// A size is zero.
    #[error("`{key}` is 0, expected at least 1")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A size is not a multiple of another one.
    #[error("`{key}` is {found}, expected a multiple of `{divisor_key}`, which is {divisor}")]
    NotDivisible {
        /// The key.
        key: &'static str,
        /// Its value.
        found: usize,
        /// The key of the divisor.
        divisor_key: &'static str,
        /// The divisor.
        divisor: usize,
    },
    /// A number is not finite, or not positive.
    #[error("`{key}` is {found}, expected a positive number")]
    NotPositive {
        /// The key.
        key: &'static str,
        /// Its value.
        found: f64,
    },
    /// A value that this kind of model needs is absent.
    #[error("`{key}` is missing, `{because}` needs it")]
    Missing {
        /// The key.
        key: &'static str,
        /// The setting that requires it.
        because: &'static str,
    },
    /// A choice that is not implemented.
    #[error("`{key}` is `{found}`, supported: {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// The value found.
        found: String,
        /// The supported values.
        supported: &'static str,
    },
}

/// Rejects a size of zero.
pub(crate) fn check_sizes(sizes: &[(&'static str, usize)]) -> Result<(), ConfigError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some(&(key, _)) => Err(ConfigError::Zero { key }),
        None => Ok(()),
    }
}

/// Refuses zero, negative values, infinities and NaN.
pub(crate) fn check_positive(key: &'static str, found: f64) -> Result<(), ConfigError> {
    if found.is_finite() && found > 0.0 {
        Ok(())
    } else {
        Err(ConfigError::NotPositive { key, found })
    }
}

/// Rejects a size that is not a multiple of another.
pub(crate) fn check_multiple(
    (key, found): (&'static str, usize),
    (divisor_key, divisor): (&'static str, usize),
) -> Result<(), ConfigError> {
    if found.is_multiple_of(divisor) {
        Ok(())
    } else {
        Err(ConfigError::NotDivisible {
            key,
            found,
            divisor_key,
            divisor,
        })
    }
}
