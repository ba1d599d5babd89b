//! Conversations to text, by the template that a model carries.
//!
//! Templates are written for Python's Jinja with a few additions of Hugging Face's; the engine here
//! is minijinja with the same additions: Python's string methods, `raise_exception`, `strftime_now`,
//! `tojson` in Python's spelling, and blocks that mark what the model said.

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::files::chat_methods;
use crate::files::tokenizer::Tokenizer;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// The author: `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl ChatMessage {
    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::by("user", content)
    }

    /// A message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::by("assistant", content)
    }

    /// Instructions for the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::by("system", content)
    }

    fn to_value(&self) -> Value {
        Value::from_pairs([
            ("role", self.role.as_str()),
            ("content", self.content.as_str()),
        ])
    }

    fn by(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.to_owned(),
            content: content.into(),
        }
    }
}

/// How the text of a conversation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatEnding {
    /// After the last message.
    Complete,
    /// After the words that begin an answer of the model.
    AwaitReply,
}

/// What a template is filled with.
#[derive(Debug, Clone)]
pub struct ChatInput<'a> {
    /// The conversation.
    pub messages: &'a [ChatMessage],
    /// How the text ends.
    pub ending: ChatEnding,
    /// How the beginning-of-text token is spelled; empty for none.
    pub bos_token: &'a str,
    /// How the end-of-text token is spelled; empty for none.
    pub eos_token: &'a str,
    /// The date that templates may mention (in UTC). Given, not read, so that a run can be repeated.
    pub now: SystemTime,
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

const NAME: &str = "chat";
const MAX_STEPS: u64 = 50_000_000;

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] with the place of the mistake.
    pub fn new(template: &str) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|source| ModelError::ChatTemplate { source })?;
        environment.set_syntax(syntax);
        // Templates come with models, from anywhere: one that loops without end is stopped.
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_unknown_method_callback(chat_methods::call);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(
                NAME,
                without_generation_tags(&with_plain_line_ends(template)),
            )
            .map_err(|source| ModelError::ChatTemplate { source })?;
        Ok(Self { environment })
    }

    /// Writes a conversation out.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] when the template refuses the conversation or cannot be filled.
    pub fn render(&self, input: &ChatInput) -> Result<String, ModelError> {
        let failed = |source| ModelError::ChatTemplate { source };
        let now = input.now;
        let strftime_now = Value::from_function(move |format: &str| strftime(format, now));
        let messages: Vec<Value> = input.messages.iter().map(ChatMessage::to_value).collect();
        let template = self.environment.get_template(NAME).map_err(failed)?;
        template
            .render(context! {
                messages => messages,
                add_generation_prompt => input.ending == ChatEnding::AwaitReply,
                bos_token => input.bos_token,
                eos_token => input.eos_token,
                strftime_now => strftime_now,
                // Hugging Face passes both, as None: templates test for that.
                tools => (),
                documents => (),
            })
            .map_err(failed)
    }
}

/// The chat template of a model, and its special tokens as text.
#[derive(Debug)]
pub struct ModelChat {
    template: ChatTemplate,
    bos_token: String,
    eos_token: String,
}

impl ModelChat {
    /// Parses the template that came with a model.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] with the place of the mistake.
    pub fn new(template: &str, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let special = tokenizer.special_token_ids();
        let text_of = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        Ok(Self {
            template: ChatTemplate::new(template)?,
            bos_token: text_of(special.bos),
            eos_token: text_of(special.eos.first().copied()),
        })
    }

    /// The text of a conversation, special tokens included. `now` is the date that templates may mention, in UTC.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] when the template refuses the conversation or cannot be filled.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        ending: ChatEnding,
        now: SystemTime,
    ) -> Result<String, ModelError> {
        self.template.render(&ChatInput {
            messages,
            ending,
            bos_token: &self.bos_token,
            eos_token: &self.eos_token,
            now,
        })
    }
}

fn raise_exception(message: &str) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        message.to_owned(),
    ))
}

/// Jinja reads every kind of line end as a line feed.
fn with_plain_line_ends(template: &str) -> String {
    template.replace("\r\n", "\n").replace('\r', "\n")
}

/// Turns `{% generation %} .. {% endgeneration %}`, which only matters for training masks in Python,
/// into a block that is always taken. Dashes, which eat white space, stay.
fn without_generation_tags(template: &str) -> String {
    let mut rewritten = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else {
            break;
        };
        let tag = &rest[start + 2..start + len];
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        rewritten.push_str(&rest[..start + 2]);
        match word {
            "generation" => rewritten.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => rewritten.push_str(&tag.replace("endgeneration", "endif")),
            _ => rewritten.push_str(tag),
        }
        rewritten.push_str("%}");
        rest = &rest[start + len + 2..];
    }
    rewritten.push_str(rest);
    rewritten
}

/// JSON as Python's `json.dumps` spells it: spaces after commas and colons, or `indent`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the engine hands options over by value"
)]
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut json = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = b" ".repeat(width.min(64));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&indent);
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut json, formatter,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut json, OneLine,
        )),
    };
    written.map_err(|error| {
        minijinja::Error::new(ErrorKind::BadSerialization, "cannot write JSON").with_source(error)
    })?;
    let text = String::from_utf8(json).map_err(|error| {
        minijinja::Error::new(ErrorKind::BadSerialization, "cannot write JSON").with_source(error)
    })?;
    Ok(Value::from_safe_string(text))
}

struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// The codes of `strftime` that templates use, in English and UTC.
fn strftime(format: &str, time: SystemTime) -> Result<String, minijinja::Error> {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let date = Date::after_epoch(days);
    let (hour, minute, second) = (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    let month = MONTHS[date.month_idx];
    let weekday = WEEKDAYS[usize::try_from(days % 7).unwrap_or(0)];

    let two = |number: u64| (format!("{number:02}"), number.to_string());
    let same = |text: &str| (text.to_owned(), text.to_owned());
    let month_number = date.month_idx as u64 + 1;
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut code = characters.next();
        // A dash leaves out what fills a number up.
        let is_short = code == Some('-');
        if is_short {
            code = characters.next();
        }
        let (padded, short) = match code {
            Some('Y') => same(&date.year.to_string()),
            Some('y') => two(date.year % 100),
            Some('m') => two(month_number),
            Some('B') => same(month),
            Some('b' | 'h') => same(&month[..3]),
            Some('d') => two(date.day),
            Some('e') => (format!("{:2}", date.day), date.day.to_string()),
            Some('j') => (
                format!("{:03}", date.day_of_year),
                date.day_of_year.to_string(),
            ),
            Some('A') => same(weekday),
            Some('a') => same(&weekday[..3]),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('p') => same(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('F') => same(&format!("{}-{month_number:02}-{:02}", date.year, date.day)),
            Some('D') => same(&format!(
                "{month_number:02}/{:02}/{:02}",
                date.day,
                date.year % 100
            )),
            Some('T') => same(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('R') => same(&format!("{hour:02}:{minute:02}")),
            Some('Z') => same("UTC"),
            Some('z') => same("+0000"),
            Some('n') => same("\n"),
            Some('%') => same("%"),
            other => {
                let code = other.map(String::from).unwrap_or_default();
                let problem = format!("the date code `%{code}` is not supported");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem));
            }
        };
        text.push_str(if is_short { &short } else { &padded });
    }
    Ok(text)
}

struct Date {
    year: u64,
    month_idx: usize,
    day: u64,
    /// From 1 on.
    day_of_year: u64,
}

impl Date {
    fn after_epoch(mut days: u64) -> Self {
        let mut year = 1970;
        // 400 years have a fixed length, which keeps the loop below short.
        year += days / 146_097 * 400;
        days %= 146_097;
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let lengths = [
            31,
            28 + u64::from(leap(year)),
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        let day_of_year = days + 1;
        let mut month_idx = 0;
        while days >= lengths[month_idx] {
            days -= lengths[month_idx];
            month_idx += 1;
        }
        Self {
            year,
            month_idx,
            day: days + 1,
            day_of_year,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn render(
        template: &str,
        messages: &[ChatMessage],
        ending: ChatEnding,
    ) -> Result<String, ModelError> {
        ChatTemplate::new(template)?.render(&ChatInput {
            messages,
            ending,
            bos_token: "<s>",
            eos_token: "</s>",
            now: SystemTime::UNIX_EPOCH + Duration::from_hours(474_780),
        })
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| {
            strftime(
                "%A %d %B %Y %H:%M:%S %I%p",
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            )
            .unwrap()
        };
        let short = strftime(
            "%-d %e %j %-j %F %D %T %R %Z %-m",
            SystemTime::UNIX_EPOCH + Duration::from_hours(264_384),
        );
        assert_eq!(
            short.unwrap(),
            "29 29 060 60 2000-02-29 02/29/00 00:00:00 00:00 UTC 2"
        );
        assert_eq!(at(0), "Thursday 01 January 1970 00:00:00 12AM");
        assert_eq!(at(951_782_400), "Tuesday 29 February 2000 00:00:00 12AM");
        assert_eq!(at(1_709_208_000), "Thursday 29 February 2024 12:00:00 12PM");
        assert_eq!(at(4_107_542_399), "Sunday 28 February 2100 23:59:59 11PM");
        assert_eq!(at(4_107_542_400), "Monday 01 March 2100 00:00:00 12AM");
    }

    #[test]
    fn an_unknown_date_code_is_an_error() {
        assert!(strftime("%Q", SystemTime::UNIX_EPOCH).is_err());
        assert!(strftime("%", SystemTime::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_template_may_refuse_a_conversation() {
        let template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}ok";
        let refused = render(template, &[ChatMessage::system("x")], ChatEnding::Complete);
        let Err(ModelError::ChatTemplate { source }) = refused else {
            panic!("{refused:?}");
        };
        assert!(source.to_string().contains("no system role"));
        assert_eq!(
            render(template, &[ChatMessage::user("x")], ChatEnding::Complete).unwrap(),
            "ok"
        );
    }

    #[test]
    fn generation_tags_change_nothing() {
        let template = "a {%- generation -%} b {% endgeneration %} c";
        assert_eq!(
            render(template, &[], ChatEnding::Complete).unwrap(),
            "ab  c"
        );
    }

    #[test]
    fn tools_are_none_and_line_ends_are_those_of_jinja() {
        let template = "{% if tools is not none %}tools{% endif %}\r\n{% if documents is defined %}a\r\nb{% endif %}";
        assert_eq!(render(template, &[], ChatEnding::Complete).unwrap(), "a\nb");
    }

    #[test]
    fn a_broken_template_is_an_error() {
        assert!(matches!(
            ChatTemplate::new("{% if %}"),
            Err(ModelError::ChatTemplate { .. })
        ));
        assert!(matches!(
            ChatTemplate::new("{% unclosed"),
            Err(ModelError::ChatTemplate { .. })
        ));
    }
}
