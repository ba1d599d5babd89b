//! `chameleon generate`: continues prompts, each adapted to its group.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
    sync::mpsc::RecvTimeoutError,
    time::Duration,
};

use chameleon_models::data::{self, ReadOptions};
use chameleon_models::engine::{Engine, Event, RequestFailure, StartedGroup, Ticket};
use serde::Serialize;

use crate::{
    commands::{Context, adapter, decoding, texts},
    errors::{CliError, ExitStatus},
    output::Format,
    resolve::{GenerateConfig, PromptSource},
};

pub(crate) fn run(config: &GenerateConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let prompts = read_prompts(&config.prompts, context)?;
    let loaded = context.load_model(&config.model)?;
    let adapter = config
        .adapter
        .as_deref()
        .map(|folder| adapter::load(folder, &loaded, config.memory))
        .transpose()?;
    let engine = decoding::start(loaded, &config.decoding)?;
    if let (Some(adapter), Some(folder)) = (adapter, &config.adapter) {
        decoding::load(&engine, adapter, folder)?;
    }
    if let Some(key) = &config.group {
        decoding::check_group(&engine, key)?;
    }
    let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let mut requests = decoding::requests(&engine, &texts, &config.decoding, "generate", context)?;
    for request in &mut requests {
        request.group.clone_from(&config.group);
    }
    // All are submitted before the first answer is shown, so that a bad one ends the run before any output.
    let tickets = requests
        .into_iter()
        .zip(1..)
        .map(|(request, number)| {
            engine
                .submit(request)
                .map_err(|refusal| decoding::refused(number, refusal))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let show = if prompts.len() == 1 && context.output.format() == Format::Text {
        Show::AsWritten
    } else {
        Show::Finished
    };
    for (prompt_idx, ticket) in tickets.into_iter().enumerate() {
        let answer = follow(&ticket, prompt_idx, show, context)?;
        show_answer(prompt_idx, &prompts[prompt_idx], &answer, show, context)?;
        if context.interrupt.is_asked() {
            return Ok(ExitStatus::Interrupted);
        }
    }
    report_timings(&engine, context);
    Ok(ExitStatus::Done)
}

/// When an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// Token by token.
    AsWritten,
    /// Once it is complete, under its prompt.
    Finished,
}

/// One answer as JSON.
#[derive(Debug, Serialize)]
struct AnswerRow<'a> {
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<usize>,
    text: &'a str,
    token_ids: &'a [u32],
    finish: &'static str,
}

/// An answer, complete or interrupted.
#[derive(Debug)]
struct Answer {
    group: Option<usize>,
    text: String,
    token_ids: Vec<u32>,
    finish: &'static str,
}

fn show_answer(
    prompt_idx: usize,
    prompt: &str,
    answer: &Answer,
    show: Show,
    context: &Context,
) -> Result<(), CliError> {
    let output = &context.output;
    match (output.format(), show) {
        (Format::Json, _) => output.json(&AnswerRow {
            prompt,
            group: answer.group,
            text: &answer.text,
            token_ids: &answer.token_ids,
            finish: answer.finish,
        }),
        (Format::Text, Show::AsWritten) => output.text("\n"),
        (Format::Text, Show::Finished) => output.text(&format!(
            "{}[{}] {}\n{}\n",
            if prompt_idx == 0 { "" } else { "\n" },
            prompt_idx + 1,
            texts::excerpt(prompt, 96),
            answer.text
        )),
    }
}

/// Reads an answer to its end, or until the user interrupts.
fn follow(
    ticket: &Ticket,
    prompt_idx: usize,
    show: Show,
    context: &Context,
) -> Result<Answer, CliError> {
    let mut answer = Answer {
        group: None,
        text: String::new(),
        token_ids: Vec::new(),
        finish: "interrupted",
    };
    while !context.interrupt.is_asked() {
        let event = match ticket.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => Event::Failed(RequestFailure::Stopped),
        };
        let fresh = match event {
            Event::Started(started) => {
                answer.group = started.group.map(|group| group.cluster_idx);
                if let Some(group) = started.group {
                    report_group(prompt_idx, group, context);
                }
                continue;
            }
            Event::Token(token) => {
                answer.token_ids.push(token.token_id);
                token.text
            }
            Event::Finished { reason, text, .. } => {
                answer.finish = decoding::word(reason);
                text
            }
            Event::Failed(source) => {
                return Err(CliError::Answer {
                    number: prompt_idx + 1,
                    source,
                });
            }
            _ => continue,
        };
        if show == Show::AsWritten && !fresh.is_empty() {
            context.output.text(&fresh)?;
        }
        answer.text.push_str(&fresh);
        if answer.finish != "interrupted" {
            break;
        }
    }
    Ok(answer)
}

fn report_group(prompt_idx: usize, group: StartedGroup, context: &Context) {
    context.output.detail(format_args!(
        "prompt {}: group {}, {:.3} from its centroid",
        prompt_idx + 1,
        group.cluster_idx,
        group.distance
    ));
}

fn report_timings(engine: &Engine, context: &Context) {
    let stats = engine.stats();
    context.output.detail(format_args!(
        "{} prompt tokens in {:.2} s, {} tokens in {:.2} s",
        stats.num_prompt_tokens,
        stats.prefill_time.as_secs_f64(),
        stats.num_step_rows,
        stats.step_time.as_secs_f64()
    ));
}

fn read_prompts(source: &PromptSource, context: &Context) -> Result<Vec<String>, CliError> {
    let prompts = match source {
        PromptSource::Arguments(prompts) => prompts.clone(),
        PromptSource::File(path) => read_file(path)?,
        PromptSource::StandardInput => {
            let mut stdin = io::stdin().lock();
            if stdin.is_terminal() {
                context
                    .output
                    .note("type prompts, one per line; Ctrl-D ends the input");
            }
            let mut bytes = Vec::new();
            stdin
                .read_to_end(&mut bytes)
                .map_err(|source| CliError::PromptsUnreadable {
                    place: "standard input".to_owned(),
                    source,
                })?;
            lines(bytes, "standard input")?
        }
    };
    if prompts.is_empty() {
        Err(CliError::NoPrompts)
    } else {
        Ok(prompts)
    }
}

/// One prompt a line, or the texts of records.
fn read_file(path: &Path) -> Result<Vec<String>, CliError> {
    let is_records = path
        .extension()
        .is_some_and(|extension| extension == "jsonl" || extension == "json");
    if is_records {
        let found = data::read_documents(path, &ReadOptions::default(), None)?;
        return Ok(found
            .documents
            .into_iter()
            .map(|document| document.text)
            .collect());
    }
    let place = path.display().to_string();
    let bytes = fs::read(path).map_err(|source| CliError::PromptsUnreadable {
        place: place.clone(),
        source,
    })?;
    lines(bytes, &place)
}

/// The lines of a text that are not blank.
fn lines(bytes: Vec<u8>, place: &str) -> Result<Vec<String>, CliError> {
    let text = String::from_utf8(bytes).map_err(|error| CliError::PromptsNotUtf8 {
        place: place.to_owned(),
        position: error.utf8_error().valid_up_to(),
    })?;
    Ok(text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_no_prompts_and_bad_bytes_are_placed() {
        assert_eq!(
            lines(b"one\n\n two\r\n".to_vec(), "here").unwrap(),
            ["one", " two"]
        );
        let error = lines(b"one\n\xff".to_vec(), "here").unwrap_err();
        assert!(matches!(
            error,
            CliError::PromptsNotUtf8 { position: 4, .. }
        ));
    }
}
