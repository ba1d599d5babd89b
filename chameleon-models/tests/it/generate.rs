//! Decoding: cached equals full, a batch equals one by one, and the texts are those of transformers.

use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::RunSeed;
use chameleon_models::{
    CacheRow, CausalLm, FinishReason, GenerateOptions, GenerateOutput, KvCache, LanguageModel,
    ModelError, NewToken, RandomSampling, Sampling, Segment, generate,
};
use proptest::prelude::*;

use crate::fixture::{Fixture, assert_all_close};
use crate::{gpt2, llama};

const CASES: [(&str, &str); 5] = [
    ("llama", "tied"),
    ("llama", "untied"),
    ("llama", "llama3_rope"),
    ("gpt2", "tied"),
    ("gpt2", "untied"),
];

fn load(family: &str, case: &str) -> LanguageModel {
    let fixture = Fixture::read(family, case);
    let device = Device::flex();
    match family {
        "llama" => LanguageModel::Llama(llama::load(&fixture, &device)),
        _ => LanguageModel::Gpt2(gpt2::load(&fixture, &device)),
    }
}

fn greedy(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens,
        sampling: Sampling::Greedy,
        stop_token_ids: vec![],
        seed: RunSeed(5),
    }
}

fn run(model: &LanguageModel, prompts: &[&[u32]], options: &GenerateOptions) -> GenerateOutput {
    generate(model, prompts, options, |_| ControlFlow::Continue(())).unwrap()
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
        let model = load(family, case);
        let prompts = fixture.id_lists("prompts");
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let expected = fixture.id_lists("continuations");
        let output = run(&model, &prompts, &greedy(expected[0].len()));
        for (generation, expected) in output.generations.iter().zip(expected) {
            assert_eq!(generation.token_ids, expected, "{family} {case}");
            assert_eq!(generation.finish_reason, FinishReason::MaxNewTokens);
        }
        assert_eq!(output.timings.num_prompt_tokens, 11);
        assert_eq!(output.timings.num_decoded_tokens, 3 * 11);
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
        let model = load(family, case);
        // Tokens of the vocabulary's second half end a text, so that rows leave at different times.
        let options = GenerateOptions { stop_token_ids: (64..96).collect(), ..greedy(8) };
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let together = run(&model, &prompts, &options).generations;
        for (prompt, generation) in prompts.iter().zip(together) {
            prop_assert_eq!(&run(&model, &[prompt], &options).generations[0], &generation);
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
fn tokens_arrive_as_they_are_chosen_and_the_caller_may_stop_a_row() {
    let model = load("llama", "llama3_rope");
    let prompts: [&[u32]; 2] = [&[54], &[1, 17, 5]];
    let whole = run(&model, &prompts, &greedy(6));
    let mut heard = vec![vec![]; 2];
    let output = generate(&model, &prompts, &greedy(6), |token: NewToken| {
        assert_eq!(token.token_idx, heard[token.prompt_idx].len());
        heard[token.prompt_idx].push(token.token_id);
        match (token.prompt_idx, token.token_idx) {
            (0, 2) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .unwrap();
    assert_eq!(output.generations[0].finish_reason, FinishReason::Stopped);
    assert_eq!(heard[0], whole.generations[0].token_ids[..3]);
    assert_eq!(heard[1], whole.generations[1].token_ids);
    for (heard, generation) in heard.iter().zip(&output.generations) {
        assert_eq!(heard, &generation.token_ids);
    }
}

#[test]
fn random_texts_repeat_and_do_not_depend_on_neighbours() {
    let model = load("llama", "untied");
    let options = GenerateOptions {
        sampling: Sampling::Random(RandomSampling::new(1.5).unwrap()),
        ..greedy(10)
    };
    let both = run(&model, &[&[3, 4], &[9]], &options);
    assert_eq!(
        both.generations,
        run(&model, &[&[3, 4], &[9]], &options).generations
    );
    let alone = run(&model, &[&[3, 4]], &options);
    assert_eq!(both.generations[0], alone.generations[0]);
    let other = GenerateOptions {
        seed: RunSeed(6),
        ..options
    };
    assert_ne!(
        alone.generations,
        run(&model, &[&[3, 4]], &other).generations
    );
}

#[test]
fn a_text_ends_where_the_model_does() {
    let model = load("gpt2", "tied");
    let prompt: Vec<u32> = (0..62).collect();
    let output = run(&model, &[&prompt, &[1]], &greedy(4));
    assert_eq!(output.generations[0].token_ids.len(), 3);
    assert_eq!(
        output.generations[0].finish_reason,
        FinishReason::ContextFull
    );
    assert_eq!(output.generations[1].token_ids.len(), 4);
}

#[test]
fn impossible_prompts_are_refused_and_nothing_to_do_is_fine() {
    let model = load("gpt2", "tied");
    let refusal = |prompts: &[&[u32]]| -> ModelError {
        generate(&model, prompts, &greedy(1), |_| {
            unreachable!("no pass is made")
        })
        .unwrap_err()
    };
    assert_eq!(
        refusal(&[&[1], &[]]).to_string(),
        "prompt 1 has 0 tokens, expected 1 to 64"
    );
    assert_eq!(
        refusal(&[&[0; 65]]).to_string(),
        "prompt 0 has 65 tokens, expected 1 to 64"
    );
    assert_eq!(
        refusal(&[&[96]]).to_string(),
        "prompt 0 holds token id 96, the model knows 96"
    );
    assert!(run(&model, &[], &greedy(1)).generations.is_empty());
    assert!(
        run(&model, &[&[1]], &greedy(0)).generations[0]
            .token_ids
            .is_empty()
    );
}
