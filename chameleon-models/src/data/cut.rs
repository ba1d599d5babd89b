//! The tokens of a document -> the windows that are its examples.

use std::ops::Range;

use super::document::{AnswerEnd, Exchange};
use super::tokenised::TokenisedText;
use super::windows::WindowOptions;

/// The windows of a document.
pub(super) struct CutDocument {
    pub(super) windows: Vec<CutWindow>,
    pub(super) num_tokens: usize,
    pub(super) num_dropped: usize,
    pub(super) dropped: Dropped,
}

/// One window, both of whose spans hold a token.
pub(super) struct CutWindow {
    pub(super) token_ids: Vec<u32>,
    /// Position of the first scored token.
    pub(super) boundary: usize,
    /// Positions of the tokens that the prompt embedding is computed from.
    pub(super) prompt: Range<usize>,
    /// Bytes of text of the scored tokens.
    pub(super) scored_bytes: usize,
}

/// Why tokens of a document are in no example.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dropped {
    /// All are.
    Nothing,
    /// The document gives no example.
    TooShort,
    /// The last window was too short.
    Tail,
    /// The prompt leaves no room for an answer.
    LongPrompt,
    /// The answer was cut off at the end of the window.
    CutAnswer,
}

/// Cuts the tokens of a document: an exchange into one window, prose into windows that follow one another.
pub(super) fn cut_document(
    text: &TokenisedText,
    exchange: Option<&Exchange>,
    options: WindowOptions,
) -> CutDocument {
    match exchange {
        Some(exchange) => cut_exchange(text, exchange, options),
        None => cut_prose(text, options),
    }
}

fn cut_prose(text: &TokenisedText, options: WindowOptions) -> CutDocument {
    let seq_len = options.seq_len();
    let num_tokens = text.token_ids().len();
    let mut windows = Vec::with_capacity(num_tokens.div_ceil(seq_len));
    let mut num_dropped = 0;
    for (window_idx, token_ids) in text.token_ids().chunks(seq_len).enumerate() {
        if token_ids.len() < options.min_len() {
            num_dropped = token_ids.len();
            break;
        }
        let start = window_idx * seq_len;
        windows.push(CutWindow {
            token_ids: token_ids.to_vec(),
            boundary: options.prefix(),
            prompt: 0..options.prefix(),
            scored_bytes: text.num_bytes(start + options.prefix()..start + token_ids.len()),
        });
    }
    let dropped = match (windows.is_empty(), num_dropped) {
        (true, _) => Dropped::TooShort,
        (false, 0) => Dropped::Nothing,
        (false, _) => Dropped::Tail,
    };
    CutDocument {
        windows,
        num_tokens,
        num_dropped,
        dropped,
    }
}

/// A token that spells the end of the prompt and the start of the answer counts as answer: the conditioning span must
/// not reveal any of it.
pub(super) fn cut_exchange(
    text: &TokenisedText,
    exchange: &Exchange,
    options: WindowOptions,
) -> CutDocument {
    let num_tokens = text.token_ids().len();
    let boundary = text.token_at(exchange.answer_start);
    let left_out = |dropped| CutDocument {
        windows: Vec::new(),
        num_tokens,
        num_dropped: num_tokens,
        dropped,
    };
    if boundary == 0 || boundary == num_tokens {
        return left_out(Dropped::TooShort);
    }
    let end = num_tokens.min(options.seq_len());
    let is_cut = end < num_tokens;
    if boundary >= end || (is_cut && end - boundary < options.min_scored()) {
        return left_out(Dropped::LongPrompt);
    }
    let mut token_ids = text.token_ids()[..end].to_vec();
    if let Some(token_id) = options.answer_end()
        && exchange.end == AnswerEnd::Unwritten
        && end < options.seq_len()
    {
        token_ids.push(token_id);
    }
    let condition = text.tokens_of(&exchange.condition);
    let condition = condition.start..condition.end.min(boundary);
    CutDocument {
        windows: vec![CutWindow {
            token_ids,
            boundary,
            prompt: if condition.is_empty() {
                0..boundary
            } else {
                condition
            },
            scored_bytes: text.num_bytes(boundary..end),
        }],
        num_tokens,
        num_dropped: num_tokens - end,
        dropped: if is_cut {
            Dropped::CutAnswer
        } else {
            Dropped::Nothing
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chameleon_core::RunSeed;
    use proptest::prelude::*;

    use super::super::{
        DataError, Document, Examples, Origin, Skipped, TokeniseError, tokenise_documents,
    };
    use super::*;

    /// One token for each byte.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "stands in for a tokenizer, which may fail"
    )]
    fn bytes_as_tokens(text: &str) -> Result<TokenisedText, TokeniseError> {
        let token_ids = text.bytes().map(u32::from).collect::<Vec<_>>();
        let byte_ends = (1..=token_ids.len()).collect();
        Ok(TokenisedText::new(token_ids, byte_ends))
    }

    fn documents_of(texts: &[String]) -> Vec<Document> {
        let prose = |(idx, text): (usize, &String)| Document {
            label: Some(["even", "odd"][idx % 2].to_owned()),
            ..Document::prose(text.clone(), Origin::new(Path::new("memory"), idx + 1))
        };
        texts.iter().enumerate().map(prose).collect()
    }

    fn cut(documents: Vec<Document>, options: WindowOptions) -> Result<Examples, DataError> {
        let corpus = tokenise_documents(documents, options, RunSeed(1), &bytes_as_tokens)?;
        corpus.examples(&corpus.all_documents())
    }

    #[test]
    fn the_last_window_is_kept_from_the_minimum_on() {
        let options = WindowOptions::new(6, 2)
            .unwrap()
            .with_min_scored(2)
            .unwrap();
        let texts = ["0123456789", "012345678", "abc"].map(str::to_owned);
        let found = cut(documents_of(&texts), options).unwrap();
        let rows = found
            .examples
            .iter()
            .map(|example| {
                (
                    example.sequence.len(),
                    example.document_idx,
                    example.label_idx,
                    example.scored_bytes,
                )
            })
            .collect::<Vec<_>>();
        assert_eq!(
            rows,
            [(6, 0, Some(0), 4), (4, 0, Some(0), 2), (6, 1, Some(1), 4)]
        );
        assert_eq!(
            found.skipped,
            Skipped {
                too_short: 1,
                tails: 1,
                num_tokens: 6,
                ..Skipped::default()
            }
        );
    }

    fn exchange(prompt: &str, answer: &str, end: AnswerEnd) -> Vec<Document> {
        vec![Document {
            exchange: Some(Exchange {
                condition: 2..prompt.len(),
                answer_start: prompt.len(),
                end,
            }),
            ..Document::prose(
                format!("{prompt}{answer}"),
                Origin::new(Path::new("memory"), 1),
            )
        }]
    }

    #[test]
    fn an_answer_is_scored_and_its_prompt_is_not() {
        let documents = exchange("Q: why?", "so", AnswerEnd::Unwritten);
        let options = WindowOptions::new(64, 32).unwrap().with_answer_end(0);
        let found = cut(documents, options).unwrap();
        let [example] = &found.examples[..] else {
            panic!("{:?}", found.examples)
        };
        assert_eq!(example.sequence.scored(), [115, 111, 0]);
        assert_eq!(example.sequence.boundary(), 7);
        assert_eq!(example.prompt, 2..7);
        assert_eq!(example.prompt_token_ids(), b" why?".map(u32::from));
        assert_eq!(example.scored_bytes, 2);
        let documents = exchange("Q: why?", "so", AnswerEnd::Written);
        let found = cut(documents, options).unwrap();
        assert_eq!(found.examples[0].sequence.scored(), [115, 111]);
    }

    #[test]
    fn long_answers_are_cut_off_and_long_prompts_left_out() {
        let options = WindowOptions::new(12, 4).unwrap().with_answer_end(0);
        let documents = exchange("0123", "456789abcdef", AnswerEnd::Unwritten);
        let found = cut(documents, options).unwrap();
        assert_eq!(found.examples[0].sequence.len(), 12);
        let skipped = found.skipped;
        assert_eq!((skipped.cut_answers, skipped.num_tokens), (1, 4));
        for prompt in ["0123456789ab", "0123456789"] {
            let documents = exchange(prompt, "answer", AnswerEnd::Unwritten);
            assert!(matches!(
                cut(documents, options),
                Err(DataError::NoExamples { .. })
            ));
        }
    }

    #[test]
    fn a_token_with_a_piece_of_the_answer_belongs_to_it() {
        let documents = exchange("ab", "cd", AnswerEnd::Unwritten);
        let pairs = TokenisedText::new(vec![7, 8, 9], vec![1, 3, 4]);
        let options = WindowOptions::new(8, 4).unwrap();
        let found = cut_document(&pairs, documents[0].exchange.as_ref(), options);
        let window = &found.windows[0];
        assert_eq!(window.token_ids[window.boundary..], [8, 9]);
        assert_eq!(window.prompt, 0..1);
    }

    #[test]
    fn only_the_examples_of_the_named_documents_are_given_and_keep_their_index() {
        let texts = ["aaaaaaaa", "bbbbbbbb"].map(str::to_owned);
        let options = WindowOptions::new(4, 1).unwrap();
        let corpus =
            tokenise_documents(documents_of(&texts), options, RunSeed(1), &bytes_as_tokens)
                .unwrap();
        let examples = corpus.examples(&[1]).unwrap().examples;
        assert_eq!(examples.len(), 2);
        assert!(examples.iter().all(|example| example.document_idx == 1));
        assert_eq!(examples[0].sequence.token_ids(), [98; 4]);
    }

    #[test]
    fn an_error_says_that_every_document_is_too_short() {
        let texts = ["abc", "abcde"].map(str::to_owned);
        let options = WindowOptions::new(64, 32).unwrap();
        let error = cut(documents_of(&texts), options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of 2 documents is long enough: the longest has 5 tokens, a window needs 40"
        );
    }

    #[test]
    fn the_first_refused_document_is_named() {
        let texts = (0..50).map(|idx| format!("text {idx}")).collect::<Vec<_>>();
        let refuse = |text: &str| match text {
            "text 17" | "text 40" => Err(TokeniseError::from("no")),
            _ => bytes_as_tokens(text),
        };
        let options = WindowOptions::new(4, 1).unwrap();
        let error =
            tokenise_documents(documents_of(&texts), options, RunSeed(1), &refuse).unwrap_err();
        assert_eq!(error.to_string(), "memory:18: cannot tokenise the text");
    }

    #[test]
    fn blank_documents_alone_are_an_error() {
        let options = WindowOptions::new(4, 1).unwrap();
        let error = cut(documents_of(&[" \n\t".to_owned()]), options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the input holds no text (skipped: 1 empty)"
        );
    }

    proptest! {
        #[test]
        fn windows_cover_every_token_once(
            lens in prop::collection::vec(1_usize..60, 1..6),
            prefix in 1_usize..8,
            min_scored in 1_usize..8,
            more in 0_usize..8,
        ) {
            let seq_len = prefix + min_scored + more;
            let texts = lens.iter().map(|&len| "0123456789".chars().cycle().take(len).collect()).collect::<Vec<String>>();
            let options = WindowOptions::new(seq_len, prefix).unwrap().with_min_scored(min_scored).unwrap();
            match cut(documents_of(&texts), options) {
                Err(error) => {
                    let no_examples = matches!(error, DataError::NoExamples { .. });
                    prop_assert!(no_examples);
                    prop_assert!(lens.iter().all(|&len| len < options.min_len()));
                }
                Ok(cut) => {
                    let mut total = cut.skipped.num_tokens;
                    for (document_idx, text) in texts.iter().enumerate() {
                        let of_document = cut.examples.iter().filter(|example| example.document_idx == document_idx);
                        let tokens = of_document.flat_map(|example| example.sequence.token_ids().to_vec()).collect::<Vec<_>>();
                        let expected = bytes_as_tokens(text).unwrap();
                        prop_assert_eq!(&tokens[..], &expected.token_ids()[..tokens.len()]);
                        prop_assert!(text.len() - tokens.len() < options.min_len());
                        total += tokens.len();
                    }
                    prop_assert_eq!(total, lens.iter().sum::<usize>());
                    for example in &cut.examples {
                        prop_assert_eq!(example.scored_bytes, example.sequence.scored().len());
                        prop_assert!(example.sequence.scored().len() >= min_scored);
                    }
                }
            }
        }
    }
}
