//! Config files: TOML keys become the flags of the same names.
//!
//! A key is turned into the flag it names and parsed by the same rules, so a file can say exactly what the command
//! line can, in the same words, and there is no second list of names to keep. Flags given on the command line win.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgMatches, Command, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use toml::{Table, Value};

use crate::{
    args::Cli,
    errors::{CliError, ConfigFileError},
};

/// Flags that make no sense in a file.
const NOT_IN_A_FILE: [&str; 5] = ["config", "help", "quiet", "verbose", "version"];

/// Reads the command line, and the config file if it names one.
pub(crate) fn read_flags(mut arguments: Vec<OsString>) -> Result<Cli, CliError> {
    let mut command = Cli::command();
    command.build();
    let given = match parse(&command, &arguments) {
        // The file may have what is missing.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            parse(&without_required_flags(), &arguments).map_err(|_| error)?
        }
        parsed => parsed?,
    };
    let Some((name, subcommand)) = given.subcommand() else {
        return Ok(Cli::from_arg_matches(&given)?);
    };
    let Some(path) = subcommand.get_one::<PathBuf>("config") else {
        return Ok(Cli::from_arg_matches(&parse(&command, &arguments)?)?);
    };
    let file = File {
        path,
        command: &command,
        name,
    };
    let from_file = file.arguments(subcommand)?;
    let end_of_flags = arguments
        .iter()
        .position(|argument| argument == "--")
        .unwrap_or(arguments.len());
    arguments.splice(end_of_flags..end_of_flags, from_file);
    Ok(Cli::from_arg_matches(&parse(&command, &arguments)?)?)
}

/// The command line as it is where every flag may be in the file.
fn without_required_flags() -> Command {
    Cli::command().mut_subcommands(|command| {
        command.mut_args(|arg| {
            if arg.is_positional() {
                arg
            } else {
                arg.required(false)
            }
        })
    })
}

fn parse(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    command.clone().try_get_matches_from(arguments)
}

/// A config file as one command sees it.
struct File<'a> {
    path: &'a Path,
    command: &'a Command,
    name: &'a str,
}

impl File<'_> {
    /// The flags the file adds to those given.
    fn arguments(&self, given: &ArgMatches) -> Result<Vec<OsString>, ConfigFileError> {
        let command = self
            .subcommand(self.name)
            .expect("clap has just matched this command");
        let mut arguments = Vec::new();
        for (key, value) in self.settings()? {
            let Some(arg) = find_arg(command, &key) else {
                continue;
            };
            let flags = flags_of(&key, &value).ok_or_else(|| {
                self.bad_value(&key, "a table or a date cannot be the value of a flag")
            })?;
            let beaten = is_given(given, arg)
                || command.get_arguments().any(|other| {
                    is_given(given, other)
                        && (conflicts(command, arg, other) || conflicts(command, other, arg))
                });
            if !beaten {
                self.check_value(&key, &flags)?;
                arguments.extend(flags);
            }
        }
        Ok(arguments)
    }

    /// The keys that count for the command: those at the top, then those in the table of its name.
    fn settings(&self) -> Result<BTreeMap<String, Value>, ConfigFileError> {
        let mut settings = BTreeMap::new();
        let mut own = Table::new();
        for (key, value) in self.read()? {
            match (value, self.subcommand(&key)) {
                (Value::Table(table), Some(command)) => {
                    if let Some(unknown) = table.keys().find(|key| find_arg(command, key).is_none())
                    {
                        return Err(self.unknown_key(unknown, &key));
                    }
                    if key == self.name {
                        own = table;
                    }
                }
                (value, _) => {
                    let known = self
                        .command
                        .get_subcommands()
                        .any(|command| find_arg(command, &key).is_some());
                    if !known {
                        return Err(self.unknown_key(&key, self.name));
                    }
                    settings.insert(key, value);
                }
            }
        }
        settings.extend(own);
        Ok(settings)
    }

    fn read(&self) -> Result<Table, ConfigFileError> {
        let path = self.path.to_owned();
        let bytes = fs::read(&path).map_err(|source| ConfigFileError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|error| ConfigFileError::NotUtf8 {
            path: path.clone(),
            position: error.utf8_error().valid_up_to(),
        })?;
        toml::from_str(&text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start)];
            ConfigFileError::Syntax {
                line: before.matches('\n').count() + 1,
                path,
                reason: error.message().lines().collect::<Vec<_>>().join(", "),
            }
        })
    }

    fn subcommand(&self, name: &str) -> Option<&Command> {
        self.command.find_subcommand(name)
    }

    /// Parses one key alone, so that the message can name the file.
    fn check_value(&self, key: &str, flags: &[OsString]) -> Result<(), ConfigFileError> {
        let mut arguments: Vec<OsString> = vec!["chameleon".into(), self.name.into()];
        arguments.extend_from_slice(flags);
        match parse(self.command, &arguments) {
            Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
                let message = error.to_string();
                let first_line = message.lines().next().unwrap_or_default();
                Err(self.bad_value(key, first_line.trim_start_matches("error: ")))
            }
            _ => Ok(()),
        }
    }

    fn bad_value(&self, key: &str, reason: &str) -> ConfigFileError {
        ConfigFileError::BadValue {
            path: self.path.to_owned(),
            key: key.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// Lets clap find the flag that comes nearest, as it does for mistyped flags.
    fn unknown_key(&self, key: &str, command: &str) -> ConfigFileError {
        let arguments = [
            "chameleon".into(),
            command.into(),
            format!("--{key}").into(),
        ];
        let nearest = match parse(self.command, &arguments)
            .err()
            .as_ref()
            .and_then(|error| error.get(ContextKind::SuggestedArg))
        {
            Some(ContextValue::String(flag)) => Some(flag.trim_start_matches('-').to_owned()),
            _ => None,
        };
        ConfigFileError::UnknownKey {
            path: self.path.to_owned(),
            key: key.to_owned(),
            nearest: nearest.filter(|flag| !NOT_IN_A_FILE.contains(&flag.as_str())),
        }
    }
}

/// The flag a key names.
fn find_arg<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(key) && !NOT_IN_A_FILE.contains(&key))
}

fn is_given(given: &ArgMatches, arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    let declared = matches!(given.try_contains_id(id), Ok(true));
    declared && given.value_source(id) == Some(ValueSource::CommandLine)
}

fn conflicts(command: &Command, arg: &Arg, other: &Arg) -> bool {
    !arg.is_global_set()
        && command
            .get_arg_conflicts_with(arg)
            .iter()
            .any(|conflicting| conflicting.get_id() == other.get_id())
}

/// A key and its value as command-line arguments; empty for `false`.
fn flags_of(key: &str, value: &Value) -> Option<Vec<OsString>> {
    let flag = |text: &str| OsString::from(format!("--{key}={text}"));
    Some(match value {
        Value::Boolean(true) => vec![format!("--{key}").into()],
        Value::Boolean(false) => Vec::new(),
        Value::String(text) => vec![flag(text)],
        Value::Integer(number) => vec![flag(&number.to_string())],
        Value::Float(number) => vec![flag(&number.to_string())],
        Value::Array(values) => {
            let parts: Option<Vec<_>> = values.iter().map(|value| flags_of(key, value)).collect();
            parts?.concat()
        }
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}
