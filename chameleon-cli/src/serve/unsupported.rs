//! Parameters of OpenAI's interface that this server does not have.
//!
//! Many clients send every parameter with a value that requests nothing. Such values are accepted, all others refused.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::SchemaType},
};

/// The message of a refused value, by which [`super::body`] recognises it.
pub(crate) const MESSAGE: &str = "not supported by this server";

/// A value that requests nothing: `null`, `false`, zero, an empty list or an empty object.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Unsupported;

/// `tool_choice`: without tools, `none` and `auto` request nothing either.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct UnsupportedToolChoice;

impl TryFrom<Value> for Unsupported {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let requests_nothing = match value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::String(_) => false,
        };
        requests_nothing.then_some(Self).ok_or(MESSAGE)
    }
}

impl TryFrom<Value> for UnsupportedToolChoice {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        if !matches!(value.as_str(), Some("none" | "auto")) {
            Unsupported::try_from(value)?;
        }
        Ok(Self)
    }
}

impl PartialSchema for Unsupported {
    fn schema() -> RefOr<Schema> {
        one_of(&[json!(false), json!(0), json!([]), json!({})])
    }
}

impl ToSchema for Unsupported {}

impl PartialSchema for UnsupportedToolChoice {
    fn schema() -> RefOr<Schema> {
        one_of(&[json!("none"), json!("auto"), json!(false), json!([])])
    }
}

impl ToSchema for UnsupportedToolChoice {}

fn one_of(values: &[Value]) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(
            "OpenAI has this parameter and this server does not; only values that request nothing are accepted.",
        ))
        .enum_values(Some(values.to_vec()))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_request_nothing_pass() {
        for text in ["0", "0.0", "null", "[]", "{}", "false"] {
            assert!(serde_json::from_str::<Unsupported>(text).is_ok(), "{text}");
        }
        for text in ["0.1", "true", "\"\"", "[1]", "{\"a\": 1}"] {
            assert!(serde_json::from_str::<Unsupported>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<UnsupportedToolChoice>("\"auto\"").is_ok());
        assert!(serde_json::from_str::<UnsupportedToolChoice>("\"required\"").is_err());
    }
}
