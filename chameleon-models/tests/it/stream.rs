//! Examples of texts that are streamed against those of texts that are in memory.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use chameleon_core::RunSeed;
use chameleon_models::data::{
    self, CorpusStream, ReadOptions, ResamplingUnits, SplitFractions, TextFields, TokeniseError,
    TokenisedText, WindowOptions,
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

/// Both ways to the examples of a path agree: documents, labels, splits, units, limits, examples and counts.
fn assert_same(path: &Path, options: &ReadOptions) {
    let seed = RunSeed(11);
    let corpus = data::read(path, options).unwrap();
    let mut seen = 0;
    let streamed = stream(path, options)
        .examples(windows(), seed, &bytes, &mut |num_bytes| seen = num_bytes)
        .unwrap();
    assert_eq!(seen, corpus.num_bytes() as u64);
    assert_eq!(streamed.num_documents(), corpus.documents().len());
    assert_eq!(streamed.label_names(), corpus.label_names());
    assert_eq!(streamed.skipped(), corpus.skipped());
    for (idx, document) in corpus.documents().iter().enumerate() {
        assert_eq!(streamed.label_name(idx), corpus.label_name(document));
        assert_eq!(streamed.origin(idx), document.origin);
    }
    assert_eq!(streamed.resampling_units(), ResamplingUnits::of(&corpus));
    let fractions = SplitFractions::new(0.2, 0.3).unwrap();
    let split = data::split(&corpus, fractions, seed);
    assert_eq!(streamed.split(fractions), split);
    for part in [&corpus.all_documents(), &split.train, &split.test] {
        if part.is_empty() {
            continue;
        }
        let whole = data::cut(&corpus, part, windows(), bytes).unwrap();
        assert_eq!(streamed.examples(part).unwrap(), whole);
        let few = whole.examples.len() / 3 + 1;
        let limited = streamed.limited_examples(part, few, seed).unwrap();
        assert_eq!(limited.examples, data::limit(whole.examples, few, seed));
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
        let expected = data::read(&path, &options).unwrap().joined("\n\n");
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
