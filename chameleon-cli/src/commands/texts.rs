//! Texts for the commands that read a data set: from a path to examples, with what was passed over told on the way.

use chameleon_core::RunSeed;
use chameleon_models::{
    Tokenizer,
    data::{self, Corpus, Example, LabelField, ReadOptions, TextFields, WindowOptions},
};

use crate::{
    commands::Context,
    errors::CliError,
    resolve::{DataConfig, SpanConfig},
};

/// Reads the documents of a data set.
pub(crate) fn read(config: &DataConfig, context: &Context) -> Result<Corpus, CliError> {
    let options = ReadOptions {
        text_fields: TextFields::Text(config.text_field.clone()),
        label_field: config
            .label_field
            .clone()
            .map_or(LabelField::Auto, LabelField::Named),
        ..ReadOptions::default()
    };
    let corpus = data::read(&config.path, &options)?;
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
    let cut = data::cut(corpus, document_indices, options, |text| {
        tokenizer.encode_with_ends(text)
    })?;
    let skipped = cut.skipped;
    if skipped.too_short > 0 {
        context.output.detail(format_args!(
            "{} of {} documents are shorter than {} tokens and left out",
            skipped.too_short,
            document_indices.len(),
            options.min_len()
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
