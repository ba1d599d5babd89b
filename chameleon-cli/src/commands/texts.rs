//! Texts for the commands that read a data set: from a path to examples, with what was passed over told on the way.

use std::time::SystemTime;

use chameleon_core::RunSeed;
use chameleon_models::{
    LoadedModel, ModelError, Tokenizer,
    chat::{ChatEnding, ChatInput, ChatMessage, ChatTemplate},
    data::{self, Corpus, Example, LabelField, ReadOptions, WindowOptions},
};

use crate::{
    commands::Context,
    errors::CliError,
    resolve::{DataConfig, SpanConfig},
};

/// Writes conversations out as a model wants them.
pub(crate) struct ChatWriter {
    template: ChatTemplate,
    bos_token: String,
    eos_token: String,
    now: SystemTime,
}

impl ChatWriter {
    /// The writer of a model, if it was made for conversations.
    pub(crate) fn of(loaded: &LoadedModel) -> Result<Option<Self>, ModelError> {
        let Some(source) = loaded.chat_template.as_deref() else {
            return Ok(None);
        };
        let special = loaded.tokenizer.special_token_ids();
        let spelled = |id: Option<u32>| {
            id.and_then(|id| loaded.tokenizer.token(id))
                .unwrap_or_default()
        };
        Ok(Some(Self {
            template: ChatTemplate::new(source)?,
            bos_token: spelled(special.bos),
            eos_token: spelled(special.eos.first().copied()),
            now: SystemTime::now(),
        }))
    }

    /// The text of some messages, special tokens spelled out.
    pub(crate) fn write(
        &self,
        messages: &[ChatMessage],
        ending: ChatEnding,
    ) -> Result<String, ModelError> {
        self.template.render(&ChatInput {
            messages,
            ending,
            bos_token: &self.bos_token,
            eos_token: &self.eos_token,
            now: self.now,
        })
    }
}

/// Reads the documents of a data set.
pub(crate) fn read(
    config: &DataConfig,
    loaded: &LoadedModel,
    context: &Context,
) -> Result<Corpus, CliError> {
    let options = ReadOptions {
        text_fields: config.text_fields.clone(),
        instruction_condition: config.instruction_condition,
        source_field: config.source_field.clone(),
        label_field: config
            .label_field
            .clone()
            .map_or(LabelField::Auto, LabelField::Named),
        ..ReadOptions::default()
    };
    let corpus = match ChatWriter::of(loaded)? {
        Some(writer) => data::read_with_chats(&config.path, &options, &|messages, ending| {
            Ok(writer.write(messages, ending)?)
        })?,
        None => data::read(&config.path, &options)?,
    };
    if !corpus.skipped().is_empty() {
        context.output.detail(format_args!(
            "{}: {}",
            config.path.display(),
            corpus.skipped()
        ));
    }
    Ok(corpus)
}

/// Cuts documents into examples: a prompt in front, the scored rest behind it.
pub(crate) fn cut(
    corpus: &Corpus,
    document_indices: &[usize],
    span: SpanConfig,
    max_examples: Option<usize>,
    tokenizer: &Tokenizer,
    context: &Context,
) -> Result<Vec<Example>, CliError> {
    let longest = WindowOptions::new(span.seq_len, span.largest_prefix)?;
    let options = WindowOptions::new(span.seq_len, span.prefix)?
        .with_min_scored(longest.min_len() - span.prefix)?;
    let options = match tokenizer.special_token_ids().eos.first() {
        Some(&token_id) => options.with_answer_end(token_id),
        None => options,
    };
    let cut = data::cut(corpus, document_indices, options, |text| {
        tokenizer.encode_with_ends(text)
    })?;
    let skipped = cut.skipped;
    let num_documents = document_indices.len();
    if skipped.too_short > 0 {
        context.output.detail(format_args!(
            "{} of {num_documents} documents are shorter than {} tokens and left out",
            skipped.too_short,
            options.min_len()
        ));
    }
    if skipped.long_prompts + skipped.cut_answers > 0 {
        context.output.detail(format_args!(
            "of {num_documents} documents {} are left out because {} tokens hold no more than their prompts, \
             and {} answers are cut off there",
            skipped.long_prompts,
            options.seq_len(),
            skipped.cut_answers
        ));
    }
    let seed: RunSeed = context.settings.seed;
    Ok(match max_examples {
        Some(max_examples) => data::limit(cut.examples, max_examples, seed),
        None => cut.examples,
    })
}

/// The start of a text on one line, for tables.
pub(crate) fn excerpt(text: &str, max_chars: usize) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A broken character at the end is a token cut in the middle.
    while words.ends_with(char::REPLACEMENT_CHARACTER) {
        words.pop();
    }
    if words.chars().count() <= max_chars {
        return words;
    }
    let mut short: String = words.chars().take(max_chars - 1).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("a\n  b\tc", 10), "a b c");
        assert_eq!(excerpt("über alle Berge", 6), "über…");
        assert_eq!(excerpt("ab\u{fffd}", 6), "ab");
    }
}
