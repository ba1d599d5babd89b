//! The values of a `config.json`, read one by one with errors that name the key.

use serde_json::{Map, Value};

use super::config_error::{ConfigError, check_positive};

/// An object of a configuration. A key that is `null` counts as absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConfigKeys<'a> {
    values: &'a Map<String, Value>,
    /// Counts of absent keys.
    default_counts: &'static [(&'static str, usize)],
}

impl<'a> ConfigKeys<'a> {
    /// The keys of a whole configuration.
    pub(crate) fn of(config: &'a Value) -> Result<Self, ConfigError> {
        match config {
            Value::Object(values) => Ok(Self {
                values,
                default_counts: &[],
            }),
            other => Err(wrong_type("config.json", "an object", other)),
        }
    }

    /// The same keys, with what a family assumes for counts that are absent.
    pub(crate) fn with_counts(self, default_counts: &'static [(&'static str, usize)]) -> Self {
        Self {
            default_counts,
            ..self
        }
    }

    /// Whether there is a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the key is not there at all, not even as `null`.
    pub(crate) fn is_absent(&self, key: &str) -> bool {
        !self.values.contains_key(key)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// A count; Python writes some of them as `64.0`.
    pub(crate) fn count(&self, key: &'static str) -> Result<Option<usize>, ConfigError> {
        let found = self.read(key, "a count", as_count)?;
        let default = || {
            let mut defaults = self.default_counts.iter();
            defaults.find(|(name, _)| *name == key)
        };
        Ok(found.or_else(|| default().map(|(_, count)| *count)))
    }

    /// A count that every configuration of the family has.
    pub(crate) fn required_count(&self, key: &'static str) -> Result<usize, ConfigError> {
        self.count(key)?.ok_or(ConfigError::Missing {
            key,
            because: "config.json",
        })
    }

    /// The first of several names that has a count.
    pub(crate) fn first_count(&self, keys: [&'static str; 2]) -> Result<usize, ConfigError> {
        match self.count(keys[1])? {
            Some(count) if !self.has(keys[0]) => Ok(count),
            _ => self.required_count(keys[0]),
        }
    }

    pub(crate) fn number(&self, key: &'static str) -> Result<Option<f64>, ConfigError> {
        self.read(key, "a number", Value::as_f64)
    }

    pub(crate) fn number_or(&self, key: &'static str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    /// A number that is the default where the key is not there at all, and none where it is `null`.
    pub(crate) fn number_unless_absent(
        &self,
        key: &'static str,
        default: f64,
    ) -> Result<Option<f64>, ConfigError> {
        if self.is_absent(key) {
            Ok(Some(default))
        } else {
            self.number(key)
        }
    }

    /// A positive number that a setting needs.
    pub(crate) fn positive(
        &self,
        key: &'static str,
        because: &'static str,
    ) -> Result<f64, ConfigError> {
        let number = self
            .number(key)?
            .ok_or(ConfigError::Missing { key, because })?;
        check_positive(key, number)?;
        Ok(number)
    }

    /// A positive number, if there is one.
    pub(crate) fn optional_positive(&self, key: &'static str) -> Result<Option<f64>, ConfigError> {
        let number = self.number(key)?;
        number.map_or(Ok(()), |number| check_positive(key, number))?;
        Ok(number)
    }

    pub(crate) fn flag_or(&self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        Ok(self
            .read(key, "true or false", Value::as_bool)?
            .unwrap_or(default))
    }

    pub(crate) fn text(&self, key: &'static str) -> Result<Option<&'a str>, ConfigError> {
        self.read(key, "a text", Value::as_str)
    }

    pub(crate) fn object(&self, key: &'static str) -> Result<Option<Self>, ConfigError> {
        let object = self.read(key, "an object", Value::as_object)?;
        Ok(object.map(|values| Self {
            values,
            default_counts: &[],
        }))
    }

    /// A list of numbers.
    pub(crate) fn numbers(&self, key: &'static str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.list(key, "a list of numbers", Value::as_f64)
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.list(key, "a list of texts", Value::as_str)
    }

    fn list<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        item: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        self.read(key, expected, |value| {
            value.as_array()?.iter().map(item).collect()
        })
    }

    fn read<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(wrong_type(key, expected, value)),
        }
    }
}

fn as_count(value: &Value) -> Option<usize> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is whole, and small enough for f64 to hold every whole number up to it"
    )]
    let whole = |number: f64| {
        (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then_some(number as usize)
    };
    match value.as_u64() {
        Some(count) => usize::try_from(count).ok(),
        None => value.as_f64().and_then(whole),
    }
}

fn wrong_type(key: &'static str, expected: &'static str, found: &Value) -> ConfigError {
    /// Longer values are cut.
    const MAX_CHARS: usize = 60;
    ConfigError::WrongType {
        key,
        expected,
        found: found.to_string().chars().take(MAX_CHARS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_the_wrong_type_are_named() {
        let config = json!({"a": 64.0, "b": "x", "c": null, "d": -1, "e": [1, "x"], "f": 0.5});
        let keys = ConfigKeys::of(&config).unwrap();
        assert_eq!(keys.count("a").unwrap(), Some(64));
        assert_eq!(keys.count("c").unwrap(), None);
        for (key, message) in [
            ("b", "`b` is \"x\", expected a count"),
            ("d", "`d` is -1, expected a count"),
            ("f", "`f` is 0.5, expected a count"),
        ] {
            assert_eq!(keys.count(key).unwrap_err().to_string(), message);
        }
        assert_eq!(
            keys.numbers("e").unwrap_err().to_string(),
            "`e` is [1,\"x\"], expected a list of numbers"
        );
        assert_eq!(
            keys.required_count("g").unwrap_err().to_string(),
            "`g` is missing, `config.json` needs it"
        );
        assert!(ConfigKeys::of(&json!([1])).is_err());
    }
}
