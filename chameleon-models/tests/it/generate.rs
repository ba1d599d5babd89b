//! Decoding: cached equals full, a batch equals one by one, and the texts are those of transformers.

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::RunSeed;
use chameleon_models::engine::{
    Completion, EndOfText, EndReason, Engine, EngineOptions, Event, RandomSampling, Request,
    Sampling, Ticket,
};
use chameleon_models::families::{CacheRow, KvCache, Segment};
use chameleon_models::files::atomic_file;
use chameleon_models::{CausalLm, HubOptions, LanguageModel, LoadedModel, ModelSource};
use proptest::prelude::*;

use crate::fixture::{Fixture, assert_all_close};

const CASES: [(&str, &str); 5] = [
    ("llama", "tied"),
    ("llama", "untied"),
    ("llama", "llama3_rope"),
    ("gpt2", "tied"),
    ("gpt2", "untied"),
];

fn load(family: &str, case: &str) -> LanguageModel {
    Fixture::read(family, case).model(&Device::flex())
}

/// A fixture as a folder with a tokenizer of 96 letters, of which the second half ends a text.
fn loaded(family: &str, case: &str) -> LoadedModel {
    let folder = tempfile::tempdir().unwrap();
    let put = |file: &str, bytes: &[u8]| {
        atomic_file::write(&folder.path().join(file), bytes).unwrap();
    };
    let mut config = Fixture::read(family, case).json["config"].clone();
    config["model_type"] = family.into();
    config["eos_token_id"] = (64..96).collect::<Vec<u32>>().into();
    put("config.json", config.to_string().as_bytes());
    let weights = Fixture::folder(family, case).join("weights.safetensors");
    put("model.safetensors", &std::fs::read(weights).unwrap());
    let vocab: serde_json::Map<String, serde_json::Value> = ('\u{4e00}'..)
        .zip(0..96)
        .map(|(letter, id): (char, u32)| (letter.to_string(), id.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}
    });
    put("tokenizer.json", tokenizer.to_string().as_bytes());
    let source = ModelSource::Folder(folder.path().to_path_buf());
    chameleon_models::load(&source, &HubOptions::from_env(), &Device::flex()).unwrap()
}

fn engine(family: &str, case: &str) -> Engine {
    Engine::start(loaded(family, case), EngineOptions::default()).unwrap()
}

/// A greedy request that no token ends.
fn endless(prompt: &[u32], max_new_tokens: usize) -> Request {
    Request {
        end_of_text: EndOfText::Ignored,
        ..Request::new(prompt.to_vec(), max_new_tokens)
    }
}

/// All requests at once.
fn answers(engine: &Engine, requests: Vec<Request>) -> Vec<Completion> {
    let tickets: Vec<Ticket> = requests
        .into_iter()
        .map(|request| engine.submit(request).unwrap())
        .collect();
    tickets
        .into_iter()
        .map(|ticket| ticket.wait().unwrap())
        .collect()
}

fn ids(rows: &[Vec<u32>]) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    let values: Vec<i64> = rows.iter().flatten().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    for (family, case) in CASES {
        let fixture = Fixture::read(family, case);
        let engine = engine(family, case);
        let prompts = fixture.id_lists("prompts");
        let expected = fixture.id_lists("continuations");
        let len = expected[0].len();
        let requests = prompts.iter().map(|prompt| endless(prompt, len)).collect();
        for (answer, expected) in answers(&engine, requests).iter().zip(expected) {
            assert_eq!(answer.token_ids, expected, "{family} {case}");
            assert_eq!(answer.reason, EndReason::MaxNewTokens);
            assert_eq!(answer.usage.num_new_tokens, len);
        }
        let stats = engine.stats();
        assert_eq!(stats.num_prompt_tokens, 11);
        assert_eq!(stats.num_generated_tokens, (prompts.len() * len) as u64);
    }
}

/// Rows that a cache is fed with piece by piece: for every pass, which rows go on and by how many tokens.
fn passes(num_rows: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    let pass = prop::collection::vec(prop_oneof![Just(0), Just(1), 2_usize..9], num_rows);
    prop::collection::vec(pass, 1..7)
}

fn text(row_idx: usize, len: usize) -> Vec<u32> {
    (0..len)
        .map(|position| u32::try_from((31 * row_idx + 13 * position + 5) % 96).unwrap())
        .collect()
}

/// The hidden states each row gets, when row `row_idx` joins with its first tokens and leaves after its last.
fn cached(model: &LanguageModel, passes: &[Vec<usize>], rows: &[usize]) -> Vec<Vec<f32>> {
    let mut cache = KvCache::new(model.sizes(), &Device::flex());
    let len = |row_idx: usize| passes.iter().map(|pass| pass[row_idx]).sum::<usize>();
    let texts: Vec<Vec<u32>> = rows
        .iter()
        .map(|&row_idx| text(row_idx, len(row_idx)))
        .collect();
    let mut keys: Vec<Option<CacheRow>> = vec![None; rows.len()];
    let mut done = vec![0; rows.len()];
    let mut found = vec![vec![]; rows.len()];
    for pass in passes {
        let going: Vec<usize> = (0..rows.len()).filter(|&idx| pass[rows[idx]] > 0).collect();
        if going.is_empty() {
            continue;
        }
        let segments: Vec<Segment<'_>> = going
            .iter()
            .map(|&idx| Segment {
                row: *keys[idx].get_or_insert_with(|| cache.add_row()),
                token_ids: &texts[idx][done[idx]..done[idx] + pass[rows[idx]]],
                layers: None,
            })
            .collect();
        let hidden = values(model.hidden_states_with_cache(&segments, &mut cache));
        let mut hidden = hidden.chunks_exact(model.sizes().hidden_size);
        for idx in going {
            let num_tokens = pass[rows[idx]];
            found[idx].extend(hidden.by_ref().take(num_tokens).flatten());
            done[idx] += num_tokens;
            if done[idx] == texts[idx].len() {
                cache.remove_row(keys[idx].unwrap());
            }
        }
    }
    assert_eq!(
        (cache.num_rows(), cache.num_tokens(), cache.capacity()),
        (0, 0, 0)
    );
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn cached_hidden_states_are_those_of_the_full_pass(
        case_idx in 0..CASES.len(),
        passes in passes(4),
    ) {
        let (family, case) = CASES[case_idx];
        let model = load(family, case);
        for (row_idx, found) in cached(&model, &passes, &[0, 1, 2, 3]).iter().enumerate() {
            let len = passes.iter().map(|pass| pass[row_idx]).sum();
            if len > 0 {
                let full = values(model.hidden_states(ids(&[text(row_idx, len)])));
                assert_all_close("cached", found, &full);
            }
        }
    }

    #[test]
    fn what_a_row_gets_is_the_same_to_the_last_bit_whoever_else_runs(
        case_idx in 0..CASES.len(),
        passes in passes(5),
    ) {
        let (family, case) = CASES[case_idx];
        let model = load(family, case);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let together = cached(&model, &passes, &[4, 2, 0, 1, 3]);
        for (found, row_idx) in together.iter().zip([4, 2, 0, 1, 3]) {
            let alone = &cached(&model, &passes, &[row_idx])[0];
            prop_assert_eq!(bits(found), bits(alone));
        }
    }

    #[test]
    fn a_batch_gives_the_texts_of_its_prompts_alone(
        case_idx in 0..CASES.len(),
        prompts in prop::collection::vec(prop::collection::vec(0_u32..96, 1..8), 1..5),
    ) {
        let (family, case) = CASES[case_idx];
        // Tokens of the vocabulary's second half end a text, so that rows leave at different times.
        let engine = engine(family, case);
        let request = |prompt: &Vec<u32>| Request::new(prompt.clone(), 8);
        let together = answers(&engine, prompts.iter().map(request).collect());
        for (prompt, together) in prompts.iter().zip(together) {
            let alone = &answers(&engine, vec![request(prompt)])[0];
            prop_assert_eq!(&alone.token_ids, &together.token_ids);
            prop_assert_eq!(&alone.text, &together.text);
            prop_assert_eq!(alone.reason, together.reason);
        }
    }
}

#[test]
fn rows_that_outgrow_their_room_keep_what_they_saw() {
    // Llama has no table of positions to fall off, so rows may cross several sizes of buffers.
    let model = load("llama", "untied");
    let passes: Vec<Vec<usize>> = (0..150)
        .map(|pass_idx| {
            vec![
                1,
                usize::from(pass_idx > 10),
                2 * usize::from(pass_idx < 70),
            ]
        })
        .collect();
    for (row_idx, found) in cached(&model, &passes, &[0, 1, 2]).iter().enumerate() {
        let len = passes.iter().map(|pass| pass[row_idx]).sum();
        let full = values(model.hidden_states(ids(&[text(row_idx, len)])));
        assert_all_close("cached", found, &full);
    }
}

#[test]
fn tokens_arrive_as_they_are_sampled_and_the_caller_may_stop_a_row() {
    let engine = engine("llama", "llama3_rope");
    let requests = || vec![endless(&[54], 6), endless(&[1, 17, 5], 6)];
    let whole = answers(&engine, requests());
    let mut tickets: Vec<Ticket> = requests()
        .into_iter()
        .map(|request| engine.submit(request).unwrap())
        .collect();
    let other = tickets.pop().unwrap();
    let stopped = tickets.pop().unwrap();
    let token_id = |event: Event| match event {
        Event::Token(token) => Some(token.token_id),
        _ => None,
    };
    let first: Vec<u32> = stopped.filter_map(token_id).take(3).collect();
    assert_eq!(first, whole[0].token_ids[..3]);
    let other: Vec<u32> = other.filter_map(token_id).collect();
    assert_eq!(other, whole[1].token_ids);
}

#[test]
fn random_texts_repeat_and_do_not_depend_on_neighbours() {
    let engine = engine("llama", "untied");
    let request = |prompt: &[u32], seed: u64| Request {
        sampling: Sampling::Random(RandomSampling::new(1.5).unwrap()),
        seed: RunSeed(seed),
        ..endless(prompt, 10)
    };
    let token_ids = |requests: Vec<Request>| -> Vec<Vec<u32>> {
        let answers = answers(&engine, requests);
        answers.into_iter().map(|answer| answer.token_ids).collect()
    };
    let both = token_ids(vec![request(&[3, 4], 5), request(&[9], 5)]);
    let again = token_ids(vec![request(&[3, 4], 5), request(&[9], 5)]);
    assert_eq!(both, again);
    let alone = token_ids(vec![request(&[3, 4], 5)]);
    assert_eq!(both[0], alone[0]);
    let other = token_ids(vec![request(&[3, 4], 6)]);
    assert_ne!(alone, other);
}

#[test]
fn a_text_ends_where_the_model_does() {
    let engine = engine("gpt2", "tied");
    let prompt: Vec<u32> = (0..62).collect();
    let answers = answers(&engine, vec![endless(&prompt, 4), endless(&[1], 4)]);
    assert_eq!(answers[0].token_ids.len(), 3);
    assert_eq!(answers[0].reason, EndReason::ContextFull);
    assert_eq!(answers[1].token_ids.len(), 4);
}

#[test]
fn impossible_prompts_are_refused_and_nothing_to_do_is_fine() {
    let engine = engine("gpt2", "tied");
    let refusal = |prompt: &[u32]| engine.submit(endless(prompt, 1)).unwrap_err().to_string();
    assert_eq!(refusal(&[]), "the prompt is empty");
    assert_eq!(
        refusal(&[0; 65]),
        "the prompt has 65 tokens, the model takes 64"
    );
    assert_eq!(
        refusal(&[96]),
        "the prompt holds token id 96, the model knows 96"
    );
    let nothing = &answers(&engine, vec![endless(&[1], 0)])[0];
    assert!(nothing.token_ids.is_empty());
    assert_eq!(nothing.reason, EndReason::MaxNewTokens);
}
