//! Examples of texts that are streamed against those that are cut in the plainest way.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use chameleon_core::{RunSeed, SplitSequence};
use chameleon_models::data::{
    self, CorpusStream, Document, Documents, Example, ReadOptions, SplitFractions, TextFields,
    TokeniseError, TokenisedText, WindowOptions,
};
use rand::RngExt as _;
use serde_json::json;

use crate::tokenizers;

/// One token for each byte.
#[expect(
    clippy::unnecessary_wraps,
    reason = "stands in for a tokenizer, which may fail"
)]
fn bytes(text: &str) -> Result<TokenisedText, TokeniseError> {
    let token_ids = text.bytes().map(u32::from).collect::<Vec<_>>();
    let ends = (1..=token_ids.len()).collect();
    Ok(TokenisedText::new(token_ids, ends))
}

fn stream<'a>(path: &'a Path, options: &'a ReadOptions) -> CorpusStream<'a> {
    CorpusStream {
        path,
        options,
        render_chat: None,
        spill_folder: Path::new("unused"),
    }
}

fn windows() -> WindowOptions {
    WindowOptions::new(24, 6).unwrap().with_answer_end(300)
}

fn write(path: &Path, text: &str) {
    File::create(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

/// What [`windows`] must give of some documents, cut in the plainest way: one token is one byte.
fn plain_examples(documents: &[Document], label_names: &[String]) -> Vec<Example> {
    let (seq_len, prefix) = (windows().seq_len(), windows().prefix());
    let mut examples = Vec::new();
    for (document_idx, document) in documents.iter().enumerate() {
        let token_ids: Vec<u32> = document.text.bytes().map(u32::from).collect();
        let label_idx = document.label.as_ref().map(|label| {
            let mut names = label_names.iter();
            names.position(|name| name == label).unwrap()
        });
        let mut push = |token_ids: &[u32], boundary: usize, prompt: Range<usize>, num_scored| {
            examples.push(Example {
                sequence: SplitSequence::new(token_ids.to_vec(), boundary).unwrap(),
                prompt,
                document_idx,
                label_idx,
                scored_bytes: num_scored,
            });
        };
        let Some(exchange) = &document.exchange else {
            for window in token_ids.chunks(seq_len) {
                if window.len() >= windows().min_len() {
                    push(window, prefix, 0..prefix, window.len() - prefix);
                }
            }
            continue;
        };
        let start = exchange.answer_start;
        let is_whole = token_ids.len() < seq_len;
        let end = token_ids.len().min(seq_len);
        if start < end && (end == token_ids.len() || end - start >= 8) {
            let mut kept = token_ids[..end].to_vec();
            if is_whole {
                kept.push(300);
            }
            push(&kept, start, exchange.condition.clone(), end - start);
        }
    }
    examples
}

/// The streamed examples of a path are those of its documents: labels, origins, splits, units, limits and counts agree.
fn assert_same(path: &Path, options: &ReadOptions) {
    let seed = RunSeed(11);
    let Documents { documents, skipped } = data::read_documents(path, options, None).unwrap();
    let mut seen = 0;
    let streamed = stream(path, options)
        .examples(windows(), seed, &bytes, &mut |num_bytes| seen = num_bytes)
        .unwrap();
    let num_bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    assert_eq!(seen, num_bytes as u64);
    assert_eq!(streamed.num_documents(), documents.len());
    assert_eq!(streamed.skipped(), &skipped);
    let mut units = HashMap::new();
    for (idx, document) in documents.iter().enumerate() {
        assert_eq!(streamed.label_name(idx), document.label.as_deref());
        assert_eq!(streamed.origin(idx), document.origin);
        let unit = streamed.resampling_units().of_document[idx];
        let unit_of_source = document.source.clone().unwrap_or_else(|| format!("#{idx}"));
        assert_eq!(*units.entry(unit_of_source).or_insert(unit), unit);
    }
    assert_eq!(units.len(), units.values().collect::<HashSet<_>>().len());
    let fractions = SplitFractions::new(0.2, 0.3).unwrap();
    let split = data::split(&documents, fractions, seed);
    assert_eq!(streamed.split(fractions), split);

    let expected = plain_examples(&documents, streamed.label_names());
    let memory = data::tokenise_documents(documents, windows(), seed, &bytes).unwrap();
    for part in [&streamed.all_documents(), &split.train, &split.test] {
        if part.is_empty() {
            continue;
        }
        let found = streamed.examples(part).unwrap();
        let of_part = |example: &&Example| part.contains(&example.document_idx);
        let expected: Vec<Example> = expected.iter().filter(of_part).cloned().collect();
        assert_eq!(found.examples, expected);
        assert_eq!(memory.examples(part).unwrap(), found);
        let few = expected.len() / 3 + 1;
        let limited = streamed.limited_examples(part, few, seed).unwrap().examples;
        assert_eq!(limited.len(), few.min(expected.len()));
        let mut rest = expected.iter();
        assert!(
            limited
                .iter()
                .all(|kept| rest.any(|example| example == kept))
        );
    }
}

#[test]
fn rows_are_cut_alike_whether_they_are_streamed_or_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let rows: Vec<String> = (0..400)
        .map(|idx| {
            let text = format!("Row {idx} über alles. ").repeat(idx % 9);
            json!({"text": text, "kind": format!("k{}", idx % 5), "from": idx / 7}).to_string()
        })
        .collect();
    write(&path, &rows.join("\n"));
    assert_same(&path, &ReadOptions::default());
    let options = ReadOptions {
        source_field: Some("from".to_owned()),
        ..ReadOptions::default()
    };
    assert_same(&path, &options);

    let path = folder.path().join("answers.csv");
    let rows: Vec<String> = (0..200)
        .map(|idx| format!("question {idx},{}", "answer ".repeat(idx % 4)))
        .collect();
    write(&path, &format!("prompt,completion\n{}\n", rows.join("\n")));
    let options = ReadOptions {
        text_fields: TextFields::Answer {
            prompt: "prompt".to_owned(),
            answer: "completion".to_owned(),
        },
        ..ReadOptions::default()
    };
    assert_same(&path, &options);
}

#[test]
fn long_texts_in_folders_and_alone_are_cut_alike() {
    let folder = tempfile::tempdir().unwrap();
    let long = "12 äöü\n345 x\n".repeat(70_000);
    let texts = folder.path().join("texts");
    fs::create_dir(&texts).unwrap();
    write(&texts.join("a.txt"), &long);
    write(&texts.join("b.md"), "short, and long enough for one window");
    write(
        &texts.join("c.txt"),
        &long[..long.floor_char_boundary(long.len() / 2)],
    );
    write(&texts.join("d.txt"), "\n");
    assert_same(&texts, &ReadOptions::default());
    assert_same(&texts.join("a.txt"), &ReadOptions::default());
}

#[test]
fn joined_tokens_are_those_of_the_joined_text() {
    let folder = tempfile::tempdir().unwrap();
    let long = "12 345 6789 ".repeat(50_000);
    for (name, text) in [("one.txt", long.as_str()), ("two.txt", "b")] {
        write(&folder.path().join(name), text);
    }
    let options = ReadOptions::default();
    for path in [folder.path().to_owned(), folder.path().join("one.txt")] {
        let documents = data::read_documents(&path, &options, None)
            .unwrap()
            .documents;
        let texts: Vec<&str> = documents
            .iter()
            .map(|document| document.text.as_str())
            .collect();
        let expected = texts.join("\n\n");
        let found = stream(&path, &options)
            .joined("\n\n", &bytes, &mut |_| {})
            .unwrap();
        assert_eq!(found.token_ids(), bytes(&expected).unwrap().token_ids());
    }
}

#[test]
fn errors_of_streamed_texts_name_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let options = ReadOptions::default();
    let message = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(content).unwrap();
        let found = stream(&path, &options).examples(windows(), RunSeed(1), &bytes, &mut |_| {});
        let error = found.unwrap_err().to_string();
        let start = error.find(name).unwrap();
        error[start..].to_owned()
    };
    let good = "{\"text\": \"one two three\"}\n".repeat(20_000);
    let broken = format!("{good}{{\"text\": 5}}\n");
    let found = message("rows.jsonl", broken.as_bytes());
    assert!(
        found.starts_with("rows.jsonl:20001: field `text`"),
        "{found}"
    );
    let mut text = "line\n".repeat(200_000).into_bytes();
    text.extend(b"tw\xFF\n");
    let found = message("a.txt", &text);
    assert!(
        found.contains("1000002") && found.contains("200001"),
        "{found}"
    );
    // A character that a block ends in the middle of is whole again in the next.
    let cut_short = [
        &"x".repeat((256 << 10) - 1).into_bytes()[..],
        "漢".as_bytes(),
    ]
    .concat();
    let path = folder.path().join("cut.txt");
    File::create(&path).unwrap().write_all(&cut_short).unwrap();
    assert_same(&path, &options);
    let found = message("cut.txt", &cut_short[..cut_short.len() - 1]);
    assert!(found.contains("262143"), "{found}");
    assert!(message("blank.txt", b" \n\n").contains("holds no text"));
}

#[test]
fn long_texts_have_the_tokens_that_a_tokenizer_gives_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.txt");
    let words = [
        "The lizard",
        " rested;",
        "\n\n",
        " über 漢字",
        " don't",
        "  ",
        " 1234567",
        "\n",
        "\tx = 5",
        "🦎",
    ];
    let mut rng = RunSeed(3).stream("words");
    let text: String = (0..150_000)
        .map(|_| words[rng.random_range(0..words.len())])
        .collect();
    write(&path, &text);
    let options = ReadOptions::default();
    for kind in tokenizers::KINDS {
        let tokenizer = tokenizers::tokenizer(kind);
        let tokenise = |text: &str| Ok::<_, TokeniseError>(tokenizer.encode_with_ends(text)?);
        let found = stream(&path, &options)
            .joined("", &tokenise, &mut |_| {})
            .unwrap();
        let expected = tokenizer.encode(&text).unwrap();
        assert!(expected.len() > 100_000, "{kind}: {}", expected.len());
        assert!(found.token_ids() == expected, "{kind}");
    }
}
