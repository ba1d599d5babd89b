//! Texts for the commands that read a data set: from a path to examples, with what was passed over told on the way.

use std::sync::Arc;
use std::time::SystemTime;

use chameleon_models::{
    LoadedModel, ModelError, Tokenizer,
    data::{
        self, CorpusStream, DataError, Document, Example, Examples, Format, LabelField,
        ReadOptions, SkippedInput, StoredTokens, Tokenise, TokeniseError, TokenisedCorpus,
        TokenisedText, WindowOptions,
    },
    files::chat::{ChatEnding, ChatInput, ChatMessage, ChatTemplate},
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

    /// What readers call to write conversations out.
    fn renderer(
        &self,
    ) -> impl Fn(&[ChatMessage], ChatEnding) -> Result<String, TokeniseError> + '_ {
        |messages, ending| Ok(self.write(messages, ending)?)
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

/// Reads the documents of a data set; all of them are in memory.
pub(crate) fn read(
    config: &DataConfig,
    loaded: &LoadedModel,
    context: &Context,
) -> Result<Vec<Document>, CliError> {
    let options = read_options(config);
    let writer = ChatWriter::of(loaded)?;
    let render_chat = writer.as_ref().map(ChatWriter::renderer);
    let render_chat = render_chat
        .as_ref()
        .map(|render| render as &data::RenderChat<'_>);
    let found = data::read_documents(&config.path, &options, render_chat)?;
    tell_skipped(config, &found.skipped, context);
    Ok(found.documents)
}

/// Reads a data set and cuts it into examples as it is read: a prompt in front, the scored rest behind it. The texts
/// may be larger than the memory.
pub(crate) fn stream(
    config: &DataConfig,
    span: SpanConfig,
    loaded: &LoadedModel,
    context: &Context,
) -> Result<TokenisedCorpus, CliError> {
    let windows = windows(span, &loaded.tokenizer)?;
    let seed = context.settings.seed;
    let corpus = with_stream(config, loaded, context, |stream, tokenise, observe| {
        stream.examples(windows, seed, tokenise, observe)
    })?;
    tell_skipped(config, corpus.skipped(), context);
    Ok(corpus)
}

/// The tokens of a whole data set as one text.
pub(crate) fn stream_joined(
    config: &DataConfig,
    separator: &str,
    loaded: &LoadedModel,
    context: &Context,
) -> Result<Arc<StoredTokens>, CliError> {
    with_stream(config, loaded, context, |stream, tokenise, observe| {
        stream.joined(separator, tokenise, observe)
    })
}

/// Reads a data set with a bar.
fn with_stream<T>(
    config: &DataConfig,
    loaded: &LoadedModel,
    context: &Context,
    read: impl FnOnce(&CorpusStream<'_>, &Tokenise<'_>, &mut dyn FnMut(u64)) -> Result<T, DataError>,
) -> Result<T, CliError> {
    let options = read_options(config);
    let writer = ChatWriter::of(loaded)?;
    let render_chat = writer.as_ref().map(ChatWriter::renderer);
    let spill_folder = match dirs::cache_dir() {
        Some(folder) => folder.join("chameleon").join("token-ids"),
        None => std::env::temp_dir(),
    };
    let stream = CorpusStream {
        path: &config.path,
        options: &options,
        render_chat: render_chat
            .as_ref()
            .map(|render| render as &data::RenderChat<'_>),
        spill_folder: &spill_folder,
    };
    let tokenise = |text: &str| -> Result<TokenisedText, TokeniseError> {
        Ok(loaded.tokenizer.encode_with_ends(text)?)
    };
    let bar = match Format::of(&config.path)? {
        // What is read of these is about what they hold.
        Format::Text | Format::JsonLines | Format::Json | Format::Csv | Format::Tsv => {
            let len = std::fs::metadata(&config.path).map_or(0, |metadata| metadata.len());
            context.output.bytes_progress("reading", len)
        }
        _ => context.output.bytes_spinner("reading"),
    };
    let found = read(&stream, &tokenise, &mut |num_bytes| {
        bar.set_position(num_bytes);
    });
    bar.finish_and_clear();
    Ok(found?)
}

fn read_options(config: &DataConfig) -> ReadOptions {
    ReadOptions {
        text_fields: config.text_fields.clone(),
        instruction_condition: config.instruction_condition,
        source_field: config.source_field.clone(),
        label_field: config
            .label_field
            .clone()
            .map_or(LabelField::Auto, LabelField::Named),
        ..ReadOptions::default()
    }
}

fn tell_skipped(config: &DataConfig, skipped: &SkippedInput, context: &Context) {
    if !skipped.is_empty() {
        let path = config.path.display();
        context.output.detail(format_args!("{path}: {skipped}"));
    }
}

/// How documents are cut.
fn windows(span: SpanConfig, tokenizer: &Tokenizer) -> Result<WindowOptions, CliError> {
    let longest = WindowOptions::new(span.seq_len, span.largest_prefix)?;
    let options = WindowOptions::new(span.seq_len, span.prefix)?
        .with_min_scored(longest.min_len() - span.prefix)?;
    Ok(match tokenizer.special_token_ids().eos.first() {
        Some(&token_id) => options.with_answer_end(token_id),
        None => options,
    })
}

/// The examples of some documents, no more than are wanted.
pub(crate) fn examples(
    corpus: &TokenisedCorpus,
    documents: &[usize],
    span: SpanConfig,
    max_examples: Option<usize>,
    context: &Context,
) -> Result<Vec<Example>, CliError> {
    let Examples { examples, skipped } = match max_examples {
        Some(max_examples) => {
            corpus.limited_examples(documents, max_examples, context.settings.seed)?
        }
        None => corpus.examples(documents)?,
    };
    let num_documents = documents.len();
    if skipped.too_short > 0 {
        context.output.detail(format_args!(
            "{} of {num_documents} documents are too short and left out",
            skipped.too_short,
        ));
    }
    if skipped.long_prompts + skipped.cut_answers > 0 {
        context.output.detail(format_args!(
            "of {num_documents} documents {} are left out because {} tokens hold no more than their prompts, \
             and {} answers are cut off there",
            skipped.long_prompts, span.seq_len, skipped.cut_answers
        ));
    }
    Ok(examples)
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
