//! Decoding: cached equals full, a batch equals one by one, and the texts are those of transformers.

use std::ops::ControlFlow;

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use chameleon_core::{LoraFactors, RunSeed};
use chameleon_hypernet::GroupedFactors;
use chameleon_models::{
    AdaptedHead, CausalLm, FinishReason, GenerateOptions, GenerateOutput, HeadRows, KvCache,
    LanguageModel, ModelError, NewToken, RandomSampling, Sampling, generate,
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
    let head = |rows: HeadRows<'_>| model.logits(rows.hidden);
    generate(model, prompts, options, head, |_| ControlFlow::Continue(())).unwrap()
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Right-padded prompts of different lengths, then steps of one and of several tokens.
    #[test]
    fn cached_hidden_states_are_those_of_the_full_pass(
        case_idx in 0..CASES.len(),
        lens in prop::collection::vec(1_usize..9, 1..4),
        steps in prop::collection::vec(1_usize..4, 0..4),
        first_id in 0_u32..90,
    ) {
        let (family, case) = CASES[case_idx];
        let model = load(family, case);
        let num_new: usize = steps.iter().sum();
        let texts: Vec<Vec<u32>> = lens
            .iter()
            .zip(0_u32..)
            .map(|(&len, row)| {
                (0..u32::try_from(len + num_new).unwrap())
                    .map(|position| (first_id + 7 * row + 13 * position) % 96)
                    .collect()
            })
            .collect();
        let full: Vec<Vec<f32>> = texts
            .iter()
            .map(|text| values(model.hidden_states(ids(std::slice::from_ref(text)))))
            .collect();

        let mut cache = KvCache::new(&lens);
        let prompt_len = *lens.iter().max().unwrap();
        let mut starts = vec![0; lens.len()];
        let prompts: Vec<Vec<u32>> = texts
            .iter()
            .zip(&lens)
            .map(|(text, &len)| {
                let mut row = text[..len].to_vec();
                row.resize(prompt_len, 95);
                row
            })
            .collect();
        let mut passes = vec![(prompts, lens.clone())];
        let mut done = 0;
        for step in steps {
            let rows = texts
                .iter()
                .zip(&lens)
                .map(|(text, len)| text[len + done..len + done + step].to_vec())
                .collect();
            passes.push((rows, vec![step; lens.len()]));
            done += step;
        }
        let hidden_size = model.sizes().hidden_size;
        for (rows, num_real) in passes {
            let hidden = model.hidden_states_with_cache(ids(&rows), &mut cache);
            for (row_idx, &num_real) in num_real.iter().enumerate() {
                let row = hidden.clone().narrow(0, row_idx, 1).narrow(1, 0, num_real);
                let start = starts[row_idx] * hidden_size;
                let expected = &full[row_idx][start..start + num_real * hidden_size];
                assert_all_close("cached", &values(row), expected);
                starts[row_idx] += num_real;
            }
        }
        prop_assert_eq!(cache.lens(), starts);
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
fn every_row_gets_the_factors_of_its_group() {
    let device = Device::flex();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    for case in ["tied", "untied"] {
        let model = load("llama", case);
        let factors: Vec<LoraFactors> = (0..2)
            .map(|_| LoraFactors {
                a: random([16, 2]),
                b: random([2, 96]),
                scale: 0.5,
            })
            .collect();
        let head = AdaptedHead {
            model: &model,
            factors: &GroupedFactors::join(factors.clone()),
            group_of_prompt: &[1, 0, 1, 1],
        };
        for prompt_indices in [vec![0, 1, 2, 3], vec![3, 0], vec![1], vec![2, 1]] {
            let hidden = random([prompt_indices.len(), 16]);
            let logits = head.forward(HeadRows {
                hidden: hidden.clone(),
                prompt_indices: &prompt_indices,
            });
            for (row_idx, &prompt_idx) in prompt_indices.iter().enumerate() {
                let row = hidden.clone().narrow(0, row_idx, 1);
                let group = &factors[head.group_of_prompt[prompt_idx]];
                let weight = model.head_weight() + group.delta();
                let found = logits.clone().narrow(0, row_idx, 1);
                assert_all_close("logits", &values(found), &values(row.matmul(weight)));
            }
        }
    }
}

#[test]
fn tokens_arrive_as_they_are_chosen_and_the_caller_may_stop_a_row() {
    let model = load("llama", "llama3_rope");
    let prompts: [&[u32]; 2] = [&[54], &[1, 17, 5]];
    let whole = run(&model, &prompts, &greedy(6));
    let mut heard = vec![vec![]; 2];
    let output = generate(
        &model,
        &prompts,
        &greedy(6),
        |rows| model.logits(rows.hidden),
        |token: NewToken| {
            assert_eq!(token.token_idx, heard[token.prompt_idx].len());
            heard[token.prompt_idx].push(token.token_id);
            match (token.prompt_idx, token.token_idx) {
                (0, 2) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        },
    )
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
        let head = |_: HeadRows<'_>| unreachable!("no pass is made");
        generate(&model, prompts, &greedy(1), head, |_| {
            ControlFlow::Continue(())
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
