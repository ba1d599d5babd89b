//! Strict JSON: no implicit conversions between lists, objects and strings; and 3.0 is the integer 3.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Number, Value};

/// A value that was written as an object. Derived code would also accept a list of its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// One of some words. Derived code would also accept `{"word": null}`.
pub(crate) fn word<T: Copy>(found: &str, words: &[(&str, T)]) -> Result<T, String> {
    let known = words.iter().find(|(word, _)| *word == found);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        format!(
            "found `{}`, expected {}",
            found.escape_debug(),
            words.join(" or ")
        )
    })
}

/// Turns whole floats into integers, up to the largest that a double represents exactly.
pub(crate) fn whole_numbers(value: &mut Value) {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let found = number.as_f64().unwrap_or(0.5);
            if found.fract() == 0.0 && found.abs() <= LARGEST {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "it is whole and small enough"
                )]
                let whole = found as i64;
                *number = Number::from(whole);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        left: u32,
        right: u32,
    }

    #[test]
    fn a_list_is_not_an_object() {
        assert!(
            serde_json::from_str::<Pair>("[1, 2]").is_ok(),
            "why this type exists"
        );
        assert!(serde_json::from_str::<Object<Pair>>("[1, 2]").is_err());
        let pair = serde_json::from_str::<Object<Pair>>(r#"{"left": 1, "right": 2}"#);
        assert_eq!(pair.unwrap(), Object(Pair { left: 1, right: 2 }));
    }

    #[test]
    fn only_whole_floats_become_integers() {
        let mut value = json!([1.0, {"a": -2.0}, 0.5, 1e300, 3]);
        whole_numbers(&mut value);
        assert_eq!(value, json!([1, {"a": -2}, 0.5, 1e300, 3]));
    }
}
