//! `chameleon generate`: prompts in, continuations out, each adapted to the group it falls in.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    ops::ControlFlow,
    path::Path,
    time::SystemTime,
};

use chameleon_models::{
    AdaptedHead, Adapter, CausalLm, FinishReason, GenerateOptions, GenerateTimings, Generation,
    LanguageModel, LoadedModel, Tokenizer,
    chat::{ChatEnding, ChatInput, ChatMessage, ChatTemplate},
    data::{self, ReadOptions},
    generate,
    sampling::{RandomSampling, Sampling as ModelSampling},
};
use serde::Serialize;

use crate::{
    commands::{
        Context,
        adapter::{self, AdaptedPrompts},
        answer::Answer,
        texts,
    },
    errors::{CliError, ExitStatus},
    output::Format,
    resolve::{GenerateConfig, PromptSource, Sampling, Template},
};

pub(crate) fn run(config: &GenerateConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let prompts = read_prompts(&config.prompts, context)?;
    let loaded = context.load_model(&config.model)?;
    let adapter = config
        .adapter
        .as_deref()
        .map(|folder| adapter::load(folder, &loaded))
        .transpose()?;
    let token_ids = tokenize(&prompts, config.template, &loaded)?;
    let adapted = adapter
        .as_ref()
        .map(|adapter| adapt(adapter, &prompts, &loaded, context))
        .transpose()?;
    let show = if prompts.len() == 1 && context.output.format() == Format::Text {
        Show::AsWritten
    } else {
        Show::Finished
    };
    let decoder = Decoder {
        config,
        trunk: adapter
            .as_ref()
            .map_or(&loaded.model, |adapter| adapter::trunk(adapter, &loaded)),
        tokenizer: &loaded.tokenizer,
        adapted: adapted.as_ref(),
        show,
        context,
    };
    for (batch_idx, batch) in token_ids.chunks(config.batch_size).enumerate() {
        let first = batch_idx * config.batch_size;
        for (idx, answer) in decoder.decode(batch, batch_idx)?.into_iter().enumerate() {
            let prompt_idx = first + idx;
            let group = adapted
                .as_ref()
                .map(|adapted| adapted.assignments[prompt_idx]);
            show_answer(prompt_idx, &prompts[prompt_idx], group, &answer, &decoder)?;
        }
        if context.interrupt.is_asked() {
            return Ok(ExitStatus::Interrupted);
        }
    }
    Ok(ExitStatus::Done)
}

/// Groups the prompts as written: neither the template nor a token that begins a text is part of what was trained on.
fn adapt(
    adapter: &Adapter,
    prompts: &[String],
    loaded: &LoadedModel,
    context: &Context,
) -> Result<AdaptedPrompts, CliError> {
    let token_ids = prompts
        .iter()
        .enumerate()
        .map(|(prompt_idx, prompt)| {
            let token_ids = loaded.tokenizer.encode(prompt)?;
            if token_ids.is_empty() {
                return Err(CliError::EmptyPrompt {
                    number: prompt_idx + 1,
                });
            }
            Ok(token_ids)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<&[u32]> = token_ids.iter().map(Vec::as_slice).collect();
    let adapted = adapter::adapt(adapter, loaded, &rows)?;
    for (prompt_idx, (cluster_idx, distance)) in adapted
        .assignments
        .iter()
        .zip(&adapted.distances)
        .enumerate()
    {
        context.output.detail(format_args!(
            "prompt {}: group {cluster_idx}, {distance:.3} from its centre",
            prompt_idx + 1
        ));
    }
    Ok(adapted)
}

/// When an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// Piece by piece.
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

fn show_answer(
    prompt_idx: usize,
    prompt: &str,
    group: Option<usize>,
    answer: &Finished,
    decoder: &Decoder<'_>,
) -> Result<(), CliError> {
    let output = &decoder.context.output;
    match (output.format(), decoder.show) {
        (Format::Json, _) => output.json(&AnswerRow {
            prompt,
            group,
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

/// A complete answer.
#[derive(Debug)]
struct Finished {
    text: String,
    token_ids: Vec<u32>,
    finish: &'static str,
}

/// Everything that answers prompts.
struct Decoder<'a> {
    config: &'a GenerateConfig,
    trunk: &'a LanguageModel,
    tokenizer: &'a Tokenizer,
    adapted: Option<&'a AdaptedPrompts>,
    show: Show,
    context: &'a Context,
}

impl Decoder<'_> {
    fn decode(&self, batch: &[Vec<u32>], batch_idx: usize) -> Result<Vec<Finished>, CliError> {
        let config = self.config;
        let rows: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
        let first = batch_idx * config.batch_size;
        let head = self.adapted.map(|adapted| AdaptedHead {
            model: self.trunk,
            factors: &adapted.factors,
            group_of_prompt: &adapted.factors_of_prompt[first..first + rows.len()],
        });
        let options = GenerateOptions {
            max_new_tokens: config.max_new_tokens,
            sampling: sampling(config.sampling)?,
            stop_token_ids: self.tokenizer.special_token_ids().eos.clone(),
            seed: self
                .context
                .settings
                .seed
                .derive(&format!("generate/{batch_idx}")),
        };
        let mut answers: Vec<Answer> = rows.iter().map(|_| Answer::new(&config.stop)).collect();
        let mut failure = None;
        let output = generate(
            self.trunk,
            &rows,
            &options,
            |rows| match &head {
                Some(head) => head.forward(rows),
                None => self.trunk.logits(rows.hidden),
            },
            |token| match self.push(&mut answers[token.prompt_idx], token.token_id) {
                Ok(flow) => flow,
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        if let Some(error) = failure {
            return Err(error);
        }
        self.tell_timings(&output.timings);
        output
            .generations
            .into_iter()
            .zip(answers)
            .map(|(generation, answer)| self.finish(generation, answer))
            .collect()
    }

    fn push(&self, answer: &mut Answer, token_id: u32) -> Result<ControlFlow<()>, CliError> {
        let fresh = answer.push(token_id, self.tokenizer)?;
        if self.show == Show::AsWritten && !fresh.is_empty() {
            self.context.output.text(&fresh)?;
        }
        if answer.is_stopped() || self.context.interrupt.is_asked() {
            Ok(ControlFlow::Break(()))
        } else {
            Ok(ControlFlow::Continue(()))
        }
    }

    fn finish(&self, generation: Generation, mut answer: Answer) -> Result<Finished, CliError> {
        let rest = answer.finish(self.tokenizer)?;
        if self.show == Show::AsWritten {
            self.context.output.text(&rest)?;
        }
        let finish = match generation.finish_reason {
            _ if answer.is_stopped() => "stop",
            FinishReason::StopToken => "end",
            FinishReason::MaxNewTokens => "length",
            FinishReason::ContextFull => "context",
            _ => "interrupted",
        };
        Ok(Finished {
            text: answer.into_text(),
            token_ids: generation.token_ids,
            finish,
        })
    }

    fn tell_timings(&self, timings: &GenerateTimings) {
        self.context.output.detail(format_args!(
            "{} prompt tokens in {:.2} s, {} tokens in {:.2} s",
            timings.num_prompt_tokens,
            timings.prompt_time.as_secs_f64(),
            timings.num_decoded_tokens,
            timings.decode_time.as_secs_f64()
        ));
    }
}

fn sampling(sampling: Sampling) -> Result<ModelSampling, CliError> {
    let Sampling::Sample {
        temperature,
        top_k,
        top_p,
    } = sampling
    else {
        return Ok(ModelSampling::Greedy);
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "nobody needs a temperature of more than seven digits"
    )]
    let narrow = |value: f64| value as f32;
    let mut random = RandomSampling::new(narrow(temperature))?;
    if let Some(top_k) = top_k {
        random = random.with_top_k(top_k)?;
    }
    if let Some(top_p) = top_p {
        random = random.with_top_p(narrow(top_p))?;
    }
    Ok(ModelSampling::Random(random))
}

fn tokenize(
    prompts: &[String],
    template: Template,
    loaded: &LoadedModel,
) -> Result<Vec<Vec<u32>>, CliError> {
    let tokenizer = &loaded.tokenizer;
    if template == Template::Plain {
        return prompts
            .iter()
            .map(|prompt| Ok(tokenizer.encode_with_special_tokens(prompt)?))
            .collect();
    }
    let source = loaded
        .chat_template
        .as_deref()
        .ok_or(CliError::NoChatTemplate)?;
    let template = ChatTemplate::new(source)?;
    let special = tokenizer.special_token_ids();
    let spelled = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
    let (bos_token, eos_token) = (spelled(special.bos), spelled(special.eos.first().copied()));
    prompts
        .iter()
        .map(|prompt| {
            let text = template.render(&ChatInput {
                messages: &[ChatMessage::user(prompt.as_str())],
                ending: ChatEnding::AwaitReply,
                bos_token: &bos_token,
                eos_token: &eos_token,
                now: SystemTime::now(),
            })?;
            // The template has written the special tokens itself.
            Ok(tokenizer.encode(&text)?)
        })
        .collect()
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
                    .note("type prompts, one a line; Ctrl-D ends them");
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
        let corpus = data::read(path, &ReadOptions::default())?;
        return Ok(corpus
            .documents()
            .iter()
            .map(|document| document.text.clone())
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
