//! Methods of Python's texts that chat templates call and the template engine does not have.

use minijinja::value::{Value, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// The longest text that padding may make.
const MAX_WIDTH: usize = 100_000;

/// Calls a method of a text; those that the engine's own additions have are left to them.
pub(crate) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.as_str().map(|text| of_text(text, method, args)) {
        Some(Ok(Some(found))) => Ok(found),
        Some(Err(error)) => Err(error),
        Some(Ok(None)) | None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.split_once(separator).unzip();
            parts([
                before.unwrap_or(text),
                before.map_or("", |_| separator),
                after.unwrap_or(""),
            ])
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.rsplit_once(separator).unzip();
            parts([
                before.unwrap_or(""),
                before.map_or("", |_| separator),
                after.unwrap_or(text),
            ])
        }
        "rsplit" => {
            let (separator, max): (Option<&str>, Option<i64>) = from_args(args)?;
            // No number of cuts is a negative one.
            let max = max
                .and_then(|max| usize::try_from(max).ok())
                .unwrap_or(usize::MAX - 1);
            let mut found: Vec<&str> = match separator {
                Some(separator) => text.rsplitn(max + 1, separator).collect(),
                None => text
                    .trim()
                    .rsplitn(max + 1, char::is_whitespace)
                    .filter(|part| !part.is_empty())
                    .collect(),
            };
            found.reverse();
            Value::from_iter(found)
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            let at = text
                .find(part)
                .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
            Value::from(text[..at].chars().count())
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            let zeros = missing(text, width)?;
            Value::from(format!("{sign}{}{digits}", "0".repeat(zeros)))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let fill = fill.unwrap_or(' ').to_string();
            let count = missing(text, width)?;
            let left = match method {
                "ljust" => 0,
                "rjust" => count,
                // Python puts the odd one to the left of a text of odd width.
                _ => count / 2 + (count & width & 1),
            };
            Value::from(format!(
                "{}{text}{}",
                fill.repeat(left),
                fill.repeat(count - left)
            ))
        }
        "swapcase" => {
            let swap = |character: char| -> String {
                if character.is_uppercase() {
                    character.to_lowercase().collect()
                } else {
                    character.to_uppercase().collect()
                }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        _ => return Ok(None),
    }))
}

fn parts(parts: [&str; 3]) -> Value {
    Value::from_iter(parts)
}

/// How many characters a text lacks to a width.
fn missing(text: &str, width: usize) -> Result<usize, Error> {
    if width > MAX_WIDTH {
        let problem = format!("a width of {width}, at most {MAX_WIDTH}");
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    use super::*;

    /// The expected texts are those of Python 3.11.
    #[test]
    fn methods_are_those_of_python() {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(call);
        for (expression, expected) in [
            ("'abc'.removeprefix('a') ~ 'abc'.removeprefix('b')", "bcabc"),
            ("'abc'.removesuffix('c') ~ 'abc'.removesuffix('b')", "ababc"),
            ("'x,y,z'.partition(',') | join('|')", "x|,|y,z"),
            ("'xyz'.partition(',') | join('|')", "xyz||"),
            ("'x,y,z'.rpartition(',') | join('|')", "x,y|,|z"),
            ("'xyz'.rpartition(',') | join('|')", "||xyz"),
            ("'a-b-c'.rsplit('-', 1) | join('|')", "a-b|c"),
            ("' a  b '.rsplit() | join('|')", "a|b"),
            ("'häc'.index('c')", "2"),
            ("'-5'.zfill(4) ~ 'abc'.zfill(2)", "-005abc"),
            (
                "'ab'.center(6) ~ '|' ~ 'a'.center(4) ~ '|' ~ 'ab'.center(5)",
                "  ab  | a  |  ab ",
            ),
            ("'ab'.ljust(4, '.') ~ 'ab'.rjust(4)", "ab..  ab"),
            ("'aXb'.swapcase()", "AxB"),
            ("'abc'.upper()", "ABC"),
        ] {
            let found = environment.render_str(&format!("{{{{ {expression} }}}}"), context! {});
            assert_eq!(found.unwrap(), expected, "{expression}");
        }
        for expression in ["'abc'.index('x')", "'a'.zfill(1000000)", "'a'.nothing()"] {
            let found = environment.render_str(&format!("{{{{ {expression} }}}}"), context! {});
            assert!(found.is_err(), "{expression}");
        }
    }
}
