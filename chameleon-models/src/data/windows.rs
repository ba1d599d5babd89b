//! Documents -> examples, and a whole text -> the windows in which it is scored.

use std::error::Error;
use std::ops::Range;

use chameleon_core::SplitSequence;
use rayon::prelude::*;

use super::corpus::{AnswerEnd, Corpus, Document, Exchange};
use super::error::DataError;
use super::tokenised::TokenisedText;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOptions {
    seq_len: usize,
    prefix: usize,
    min_scored: usize,
    answer_end: Option<u32>,
}

impl WindowOptions {
    /// Fewest scored tokens of a document's last window, unless a full window scores fewer.
    pub const DEFAULT_MIN_SCORED: usize = 8;

    /// Windows of `seq_len` tokens, the first `prefix` of which are the conditioning span.
    ///
    /// # Errors
    /// [`DataError::WindowSizes`] unless `1 <= prefix < seq_len`.
    pub fn new(seq_len: usize, prefix: usize) -> Result<Self, DataError> {
        let min_scored = Self::DEFAULT_MIN_SCORED.min(seq_len.saturating_sub(prefix));
        Self::checked(seq_len, prefix, min_scored)
    }

    /// The same windows, the last of a document being kept from `min_scored` scored tokens on.
    ///
    /// # Errors
    /// [`DataError::WindowSizes`] unless `1 <= min_scored` and `prefix + min_scored <= seq_len`.
    pub fn with_min_scored(self, min_scored: usize) -> Result<Self, DataError> {
        Ok(Self {
            answer_end: self.answer_end,
            ..Self::checked(self.seq_len, self.prefix, min_scored)?
        })
    }

    /// The same windows, with this token behind every answer that is not cut off and does not write its end itself:
    /// a model learns from it where to stop.
    #[must_use]
    pub fn with_answer_end(self, token_id: u32) -> Self {
        Self {
            answer_end: Some(token_id),
            ..self
        }
    }

    /// Tokens of a full window.
    pub fn seq_len(self) -> usize {
        self.seq_len
    }

    /// Tokens of the conditioning span.
    pub fn prefix(self) -> usize {
        self.prefix
    }

    /// Fewest tokens of a window.
    pub fn min_len(self) -> usize {
        self.prefix + self.min_scored
    }

    fn checked(seq_len: usize, prefix: usize, min_scored: usize) -> Result<Self, DataError> {
        let fits = prefix
            .checked_add(min_scored)
            .is_some_and(|needed| needed <= seq_len);
        if prefix == 0 || min_scored == 0 || !fits {
            return Err(DataError::WindowSizes {
                seq_len,
                prefix,
                min_scored,
            });
        }
        Ok(Self {
            seq_len,
            prefix,
            min_scored,
            answer_end: None,
        })
    }
}

/// One window of one document, or one prompt with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The tokens, and where the scored ones begin.
    pub sequence: SplitSequence,
    /// Positions of the tokens that the prompt embedding is made of: all of the conditioning span, or the part of it
    /// that says what is wanted.
    pub prompt: Range<usize>,
    /// Index into [`Corpus::documents`].
    pub document_idx: usize,
    /// Index into [`Corpus::label_names`].
    pub label_idx: Option<usize>,
    /// Bytes of text that the scored tokens stand for: the denominator of bits per byte.
    pub scored_bytes: usize,
}

impl Example {
    /// A sequence whose whole conditioning span is its prompt.
    pub fn of_prefix(
        sequence: SplitSequence,
        document_idx: usize,
        label_idx: Option<usize>,
        scored_bytes: usize,
    ) -> Self {
        Self {
            prompt: 0..sequence.boundary(),
            sequence,
            document_idx,
            label_idx,
            scored_bytes,
        }
    }

    /// The tokens that the prompt embedding is made of, at least one.
    pub fn prompt_token_ids(&self) -> &[u32] {
        &self.sequence.token_ids()[self.prompt.clone()]
    }
}

/// What did not become an example, or only in part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Documents that gave no example.
    pub too_short: usize,
    /// Exchanges whose prompt leaves no room for an answer.
    pub long_prompts: usize,
    /// Answers that were cut off at the end of the window.
    pub cut_answers: usize,
    /// Last windows that were dropped from documents that gave examples.
    pub tails: usize,
    /// Tokens of all of these.
    pub num_tokens: usize,
}

/// The examples of a corpus, in the order of its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examples {
    /// The examples; at least one.
    pub examples: Vec<Example>,
    /// What was too short.
    pub skipped: Skipped,
}

/// Tokenises the documents named by `document_indices` and cuts each into windows that follow one another
/// without overlap. An exchange becomes one example instead: its prompt is the conditioning span, its answer, as
/// far as the window reaches, the scored one.
///
/// The work is spread over all processors; the result depends on the order of the indices alone.
///
/// # Errors
/// The first document, in order, that `tokenise` refuses; [`DataError::NoExamples`] if every document is shorter
/// than [`WindowOptions::min_len`].
///
/// # Panics
/// If an index is out of range.
pub fn cut<F, E>(
    corpus: &Corpus,
    document_indices: &[usize],
    options: WindowOptions,
    tokenise: F,
) -> Result<Examples, DataError>
where
    F: Fn(&str) -> Result<TokenisedText, E> + Sync,
    E: Into<Box<dyn Error + Send + Sync>> + Send,
{
    let cut_documents = document_indices
        .par_iter()
        .map(|&document_idx| {
            let document = &corpus.documents()[document_idx];
            let text = tokenise(&document.text).map_err(|source| DataError::Tokenise {
                origin: document.origin.clone(),
                source: source.into(),
            })?;
            cut_document(&text, document, document_idx, options)
        })
        .collect::<Vec<_>>();

    let mut examples = Vec::new();
    let mut skipped = Skipped::default();
    let mut longest = 0;
    for cut_document in cut_documents {
        let mut windows = cut_document?;
        longest = longest.max(windows.num_tokens);
        skipped.add(windows.loss, windows.num_dropped);
        examples.append(&mut windows.examples);
    }
    if examples.is_empty() {
        return Err(DataError::NoExamples {
            num_documents: document_indices.len(),
            longest,
            needed: options.min_len(),
        });
    }
    Ok(Examples { examples, skipped })
}

impl Skipped {
    /// Counts what was lost of one document.
    pub(super) fn add(&mut self, loss: Loss, num_tokens: usize) {
        self.num_tokens += num_tokens;
        match loss {
            Loss::Nothing => {}
            Loss::TooShort => self.too_short += 1,
            Loss::Tail => self.tails += 1,
            Loss::LongPrompt => self.long_prompts += 1,
            Loss::CutAnswer => self.cut_answers += 1,
        }
    }
}

/// The examples of one document.
pub(super) struct CutDocument {
    pub(super) examples: Vec<Example>,
    pub(super) num_tokens: usize,
    pub(super) num_dropped: usize,
    pub(super) loss: Loss,
}

/// What became of the tokens that are in no example.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loss {
    Nothing,
    TooShort,
    Tail,
    LongPrompt,
    CutAnswer,
}

/// Cuts the tokens of a document; its own text is not looked at.
pub(super) fn cut_document(
    text: &TokenisedText,
    document: &Document,
    document_idx: usize,
    options: WindowOptions,
) -> Result<CutDocument, DataError> {
    if let Some(exchange) = &document.exchange {
        return cut_exchange(text, exchange, document, document_idx, options);
    }
    let num_tokens = text.token_ids().len();
    let mut examples = Vec::with_capacity(num_tokens.div_ceil(options.seq_len));
    let mut num_dropped = 0;
    for (window_idx, window) in text.token_ids().chunks(options.seq_len).enumerate() {
        if window.len() < options.min_len() {
            num_dropped = window.len();
            break;
        }
        let start = window_idx * options.seq_len;
        let scored_bytes = text.num_bytes(start + options.prefix..start + window.len());
        examples.push(Example::of_prefix(
            split_sequence(window.to_vec(), options.prefix, document)?,
            document_idx,
            document.label_idx,
            scored_bytes,
        ));
    }
    let loss = match (examples.is_empty(), num_dropped) {
        (true, _) => Loss::TooShort,
        (false, 0) => Loss::Nothing,
        (false, _) => Loss::Tail,
    };
    Ok(CutDocument {
        examples,
        num_tokens,
        num_dropped,
        loss,
    })
}

/// A token that spells the end of the prompt and the start of the answer counts as answer: nothing that is looked at
/// may tell of it.
fn cut_exchange(
    text: &TokenisedText,
    exchange: &Exchange,
    document: &Document,
    document_idx: usize,
    options: WindowOptions,
) -> Result<CutDocument, DataError> {
    let num_tokens = text.token_ids().len();
    let boundary = text.token_at(exchange.answer_start);
    let lost = |loss| CutDocument {
        examples: Vec::new(),
        num_tokens,
        num_dropped: num_tokens,
        loss,
    };
    if boundary == 0 || boundary == num_tokens {
        return Ok(lost(Loss::TooShort));
    }
    let end = num_tokens.min(options.seq_len);
    let is_cut = end < num_tokens;
    if boundary >= end || (is_cut && end - boundary < options.min_scored) {
        return Ok(lost(Loss::LongPrompt));
    }
    let mut token_ids = text.token_ids()[..end].to_vec();
    if let Some(token_id) = options.answer_end
        && exchange.end == AnswerEnd::Unwritten
        && end < options.seq_len
    {
        token_ids.push(token_id);
    }
    let sequence = split_sequence(token_ids, boundary, document)?;
    let condition = text.tokens_of(&exchange.condition);
    let prompt = condition.start..condition.end.min(boundary);
    let example = Example {
        prompt: if prompt.is_empty() {
            0..boundary
        } else {
            prompt
        },
        ..Example::of_prefix(
            sequence,
            document_idx,
            document.label_idx,
            text.num_bytes(boundary..end),
        )
    };
    Ok(CutDocument {
        examples: vec![example],
        num_tokens,
        num_dropped: num_tokens - end,
        loss: if is_cut {
            Loss::CutAnswer
        } else {
            Loss::Nothing
        },
    })
}

fn split_sequence(
    token_ids: Vec<u32>,
    boundary: usize,
    document: &Document,
) -> Result<SplitSequence, DataError> {
    SplitSequence::new(token_ids, boundary).map_err(|source| DataError::Sequence {
        origin: document.origin.clone(),
        source,
    })
}

/// A stretch of a text that is given to the model at once; its last `num_scored` tokens are predicted and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalWindow<'a> {
    /// The tokens the model sees, at least two.
    pub token_ids: &'a [u32],
    /// Position of the first of them in the text.
    pub start: usize,
    /// How many tokens at the end of the window are scored, at least one.
    pub num_scored: usize,
}

impl EvalWindow<'_> {
    /// The positions in the text of the scored tokens.
    pub fn scored_positions(&self) -> Range<usize> {
        let end = self.start + self.token_ids.len();
        end - self.num_scored..end
    }
}

/// Windows of `context` tokens that follow one another without overlap.
///
/// The first token of every window is never scored: nothing comes before it in its window. A text of `n` tokens
/// thus has `n - n.div_ceil(context)` scored ones, and a last window of one token is left out. This is the recipe
/// of Hugging Face's page "Perplexity of fixed-length models" with a stride equal to the context, and so is the
/// usual WikiText figure.
///
/// # Errors
/// If `context` is below 2 or the text has fewer than 2 tokens.
pub fn non_overlapping(
    token_ids: &[u32],
    context: usize,
) -> Result<Vec<EvalWindow<'_>>, DataError> {
    sliding(token_ids, context, context)
}

/// Windows of `context` tokens, each starting `stride` after the last: every token is scored once, with at least
/// `context - stride` tokens before it once the text is that long.
///
/// The windows and scored tokens are those of Hugging Face's page "Perplexity of fixed-length models": the first
/// window scores all but its first token, every further one the tokens after the end of the window before it, and
/// the first window that reaches the end of the text is the last. With a stride below the context only the first
/// token of the text is never scored. One difference is left to the caller's weights: that page averages the loss
/// over the scored tokens of a window, then weights the average by one less than their number in every
/// window but the first, an approximation; a sum over all scored tokens divided by their number is exact.
///
/// # Errors
/// If `context` is below 2, `stride` is 0 or above `context`, or the text has fewer than 2 tokens.
pub fn sliding(
    token_ids: &[u32],
    context: usize,
    stride: usize,
) -> Result<Vec<EvalWindow<'_>>, DataError> {
    if context < 2 || stride == 0 || stride > context {
        return Err(DataError::EvalSizes { context, stride });
    }
    let num_tokens = token_ids.len();
    if num_tokens < 2 {
        return Err(DataError::TextTooShort { num_tokens });
    }
    let mut windows = Vec::with_capacity(num_tokens.div_ceil(stride));
    let mut scored_end = 0;
    for start in (0..num_tokens).step_by(stride) {
        let end = num_tokens.min(start.saturating_add(context));
        // The first token of a window has nothing before it, whether or not it is new.
        let num_scored = (end - scored_end).min(end - start - 1);
        if num_scored > 0 {
            windows.push(EvalWindow {
                token_ids: &token_ids[start..end],
                start,
                num_scored,
            });
        }
        scored_end = end;
        if end == num_tokens {
            break;
        }
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::{CorpusBuilder, NewDocument, Origin};
    use super::*;

    /// One token for each byte.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "stands in for a tokenizer, which may fail"
    )]
    fn bytes_as_tokens(text: &str) -> Result<TokenisedText, io::Error> {
        let token_ids = text.bytes().map(u32::from).collect::<Vec<_>>();
        let byte_ends = (1..=token_ids.len()).collect();
        Ok(TokenisedText::new(token_ids, byte_ends))
    }

    fn corpus_of(texts: &[String]) -> Corpus {
        let mut builder = CorpusBuilder::new();
        for (idx, text) in texts.iter().enumerate() {
            let label = if idx % 2 == 0 { "even" } else { "odd" };
            let origin = Origin::new(Path::new("memory"), idx + 1);
            builder.push(NewDocument::prose(text.clone(), origin).with_label(label));
        }
        builder.build(Path::new("memory")).unwrap()
    }

    #[test]
    fn the_last_window_is_kept_from_the_minimum_on() {
        let options = WindowOptions::new(6, 2)
            .unwrap()
            .with_min_scored(2)
            .unwrap();
        let corpus = corpus_of(&[
            "0123456789".to_owned(),
            "012345678".to_owned(),
            "abc".to_owned(),
        ]);
        let cut = cut(&corpus, &corpus.all_documents(), options, bytes_as_tokens).unwrap();
        let rows = cut
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
            cut.skipped,
            Skipped {
                too_short: 1,
                tails: 1,
                num_tokens: 6,
                ..Skipped::default()
            }
        );
    }

    fn exchange(prompt: &str, answer: &str, end: AnswerEnd) -> Corpus {
        let mut builder = CorpusBuilder::new();
        builder.push(NewDocument {
            exchange: Some(Exchange {
                condition: 2..prompt.len(),
                answer_start: prompt.len(),
                end,
            }),
            ..NewDocument::prose(
                format!("{prompt}{answer}"),
                Origin::new(Path::new("memory"), 1),
            )
        });
        builder.build(Path::new("memory")).unwrap()
    }

    #[test]
    fn an_answer_is_scored_and_its_prompt_is_not() {
        let corpus = exchange("Q: why?", "so", AnswerEnd::Unwritten);
        let options = WindowOptions::new(64, 32).unwrap().with_answer_end(0);
        let cut = cut(&corpus, &[0], options, bytes_as_tokens).unwrap();
        let [example] = &cut.examples[..] else {
            panic!("{:?}", cut.examples)
        };
        assert_eq!(example.sequence.scored(), [115, 111, 0]);
        assert_eq!(example.sequence.boundary(), 7);
        assert_eq!(example.prompt, 2..7);
        assert_eq!(example.prompt_token_ids(), b" why?".map(u32::from));
        assert_eq!(example.scored_bytes, 2);
        let corpus = exchange("Q: why?", "so", AnswerEnd::Written);
        let cut = super::cut(&corpus, &[0], options, bytes_as_tokens).unwrap();
        assert_eq!(cut.examples[0].sequence.scored(), [115, 111]);
    }

    #[test]
    fn long_answers_are_cut_off_and_long_prompts_left_out() {
        let options = WindowOptions::new(12, 4).unwrap().with_answer_end(0);
        let corpus = exchange("0123", "456789abcdef", AnswerEnd::Unwritten);
        let cut = cut(&corpus, &[0], options, bytes_as_tokens).unwrap();
        assert_eq!(cut.examples[0].sequence.len(), 12);
        assert_eq!((cut.skipped.cut_answers, cut.skipped.num_tokens), (1, 4));
        for prompt in ["0123456789ab", "0123456789"] {
            let corpus = exchange(prompt, "answer", AnswerEnd::Unwritten);
            assert!(matches!(
                super::cut(&corpus, &[0], options, bytes_as_tokens),
                Err(DataError::NoExamples { .. })
            ));
        }
    }

    #[test]
    fn a_token_with_a_piece_of_the_answer_belongs_to_it() {
        let corpus = exchange("ab", "cd", AnswerEnd::Unwritten);
        let pairs = |_: &str| Ok::<_, io::Error>(TokenisedText::new(vec![7, 8, 9], vec![1, 3, 4]));
        let options = WindowOptions::new(8, 4).unwrap();
        let cut = cut(&corpus, &[0], options, pairs).unwrap();
        assert_eq!(cut.examples[0].sequence.scored(), [8, 9]);
        assert_eq!(cut.examples[0].prompt, 0..1);
    }

    #[test]
    fn only_the_named_documents_are_cut_and_keep_their_index() {
        let corpus = corpus_of(&["aaaaaaaa".to_owned(), "bbbbbbbb".to_owned()]);
        let cut = cut(
            &corpus,
            &[1],
            WindowOptions::new(4, 1).unwrap(),
            bytes_as_tokens,
        )
        .unwrap();
        assert_eq!(cut.examples.len(), 2);
        assert!(cut.examples.iter().all(|example| example.document_idx == 1));
        assert_eq!(cut.examples[0].sequence.token_ids(), [98; 4]);
    }

    #[test]
    fn nothing_long_enough_is_an_error_with_the_numbers() {
        let corpus = corpus_of(&["abc".to_owned(), "abcde".to_owned()]);
        let options = WindowOptions::new(64, 32).unwrap();
        let error = cut(&corpus, &corpus.all_documents(), options, bytes_as_tokens).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of 2 documents is long enough: the longest has 5 tokens, a window needs 40"
        );
    }

    #[test]
    fn the_first_refused_document_is_named() {
        let texts = (0..50).map(|idx| format!("text {idx}")).collect::<Vec<_>>();
        let corpus = corpus_of(&texts);
        let refuse = |text: &str| match text {
            "text 17" | "text 40" => Err(io::Error::other("no")),
            _ => bytes_as_tokens(text),
        };
        let options = WindowOptions::new(4, 1).unwrap();
        let error = cut(&corpus, &corpus.all_documents(), options, refuse).unwrap_err();
        assert_eq!(error.to_string(), "memory:18: cannot tokenise the text");
    }

    #[test]
    fn sizes_that_leave_nothing_are_refused() {
        for (seq_len, prefix) in [(4, 0), (4, 4), (4, 5), (0, 0), (1, 1)] {
            assert!(
                WindowOptions::new(seq_len, prefix).is_err(),
                "{seq_len} {prefix}"
            );
        }
        let options = WindowOptions::new(4, 1).unwrap();
        assert!(options.with_min_scored(0).is_err());
        assert!(options.with_min_scored(4).is_err());
        assert!(options.with_min_scored(usize::MAX).is_err());
    }

    #[test]
    fn special_tokens_stand_for_no_bytes() {
        let text = TokenisedText::new(vec![1, 10, 11, 2], vec![0, 3, 5, 0]);
        assert_eq!(text.num_bytes(0..1), 0);
        assert_eq!(text.num_bytes(1..4), 5);
        assert_eq!(text.num_bytes(2..4), 2);
        assert_eq!(text.num_bytes(3..4), 0);
    }

    /// The loop of Hugging Face's page: `(begin, end, scored)`, the scored ones being those whose label survives both
    /// the mask and the shift.
    fn hugging_face(
        seq_len: usize,
        max_length: usize,
        stride: usize,
    ) -> Vec<(usize, usize, usize)> {
        let mut windows = Vec::new();
        let mut prev_end = 0;
        let mut begin = 0;
        while begin < seq_len {
            let end = (begin + max_length).min(seq_len);
            let trg_len = end - prev_end;
            let labels = (begin..end).map(|position| position >= end - trg_len);
            let scored = labels.skip(1).filter(|&kept| kept).count();
            windows.push((begin, end, scored));
            prev_end = end;
            if end == seq_len {
                break;
            }
            begin += stride;
        }
        windows
    }

    #[test]
    fn sixteen_windows_of_1024_score_16368_of_16384_tokens() {
        let token_ids = vec![0; 16_384];
        let windows = non_overlapping(&token_ids, 1024).unwrap();
        assert_eq!(windows.len(), 16);
        let num_scored = windows
            .iter()
            .map(|window| window.num_scored)
            .sum::<usize>();
        assert_eq!(num_scored, 16_368);
    }

    #[test]
    fn bad_evaluation_sizes_are_refused() {
        assert!(non_overlapping(&[1, 2, 3], 1).is_err());
        assert!(sliding(&[1, 2, 3], 4, 0).is_err());
        assert!(sliding(&[1, 2, 3], 4, 5).is_err());
        assert!(matches!(
            non_overlapping(&[1], 4),
            Err(DataError::TextTooShort { num_tokens: 1 })
        ));
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
            let corpus = corpus_of(&texts);
            let options = WindowOptions::new(seq_len, prefix).unwrap().with_min_scored(min_scored).unwrap();
            match cut(&corpus, &corpus.all_documents(), options, bytes_as_tokens) {
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

        #[test]
        fn evaluation_windows_are_those_of_hugging_face(
            num_tokens in 2_usize..200,
            context in 2_usize..40,
            overlap in 0_usize..40,
        ) {
            let stride = context - overlap.min(context - 1);
            let token_ids = (0..u32::try_from(num_tokens).unwrap()).collect::<Vec<_>>();
            let windows = sliding(&token_ids, context, stride).unwrap();
            let ours = windows
                .iter()
                .map(|window| (window.start, window.start + window.token_ids.len(), window.num_scored))
                .collect::<Vec<_>>();
            let theirs = hugging_face(num_tokens, context, stride)
                .into_iter()
                .filter(|&(_, _, scored)| scored > 0)
                .collect::<Vec<_>>();
            prop_assert_eq!(ours, theirs);

            let scored = windows.iter().flat_map(EvalWindow::scored_positions).collect::<Vec<_>>();
            let never = if stride == context { context } else { num_tokens };
            let expected = (0..num_tokens).filter(|position| position % never != 0).collect::<Vec<_>>();
            prop_assert_eq!(scored, expected);
            for window in &windows {
                prop_assert_eq!(window.token_ids, &token_ids[window.start..][..window.token_ids.len()]);
            }
        }
    }
}
