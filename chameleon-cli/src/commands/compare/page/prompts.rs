//! The parts of the page that show prompts: a map of their groups, and the texts with the largest gains and losses.

use std::fmt::Write as _;

use burn::tensor::{Int, Tensor};
use chameleon_cluster::{PrincipalComponents, principal_components};
use chameleon_models::training::experiment::{Comparison, ComparisonReport, MethodRuns};
use chameleon_models::training::{GroupedExamples, Method};

use crate::{
    commands::texts::excerpt,
    errors::CliError,
    report::{Block, HtmlTable, MapChart, MapPoint, extremes, sample},
};

use super::{heading, or_empty};

/// Number of samples of each kind.
const NUM_SAMPLES: usize = 4;

/// Largest number of prompts on the map.
const MAX_MAP_POINTS: usize = 800;

/// The training prompts on the plane of their first two principal components.
pub(super) fn map(comparison: &Comparison<'_>) -> Result<Block, CliError> {
    let prepared = &comparison.texts.data;
    let data = &prepared.train.data;
    let [num_prompts, _] = data.prompt_embeddings.dims();
    let every = num_prompts.div_ceil(MAX_MAP_POINTS).max(1);
    let rows: Vec<i64> = (0..num_prompts as i64).step_by(every).collect();
    let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &data.prompt_embeddings.device());
    let drawn = data.prompt_embeddings.clone().select(0, rows);
    let components = principal_components(&drawn, 2)?;
    let mut points = Vec::new();
    for (at, row) in places(&components, &drawn)
        .into_iter()
        .zip((0..).step_by(every))
    {
        points.push(MapPoint {
            at,
            kind_idx: data.assignments[row],
            title: prompt_title(comparison, data, row)?,
        });
    }
    let chart = MapChart {
        title: "Map of the groups".to_owned(),
        points,
        centers: places(&components, &prepared.centroids),
    };
    Ok(Block::Figure {
        title: "Map of the groups".to_owned(),
        caption: format!(
            "Training prompts{} on their first two principal components, which hold {:.0} % of their variance; \
             numbers are the groups' centroids. Point at a mark for its prompt.",
            if every > 1 { ", a part of them," } else { "" },
            components.explained() * 100.0
        ),
        svg: chart.svg(),
        table: group_table(comparison)?,
    })
}

/// Coordinates of points along the first two components.
fn places(components: &PrincipalComponents, points: &Tensor<2>) -> Vec<[f64; 2]> {
    let flat = components.project(points).into_data();
    let values: Vec<f64> = flat.iter::<f32>().map(f64::from).collect();
    values.chunks_exact(2).map(|at| [at[0], at[1]]).collect()
}

fn prompt_title(
    comparison: &Comparison<'_>,
    data: &GroupedExamples,
    row: usize,
) -> Result<String, CliError> {
    let prepared = &comparison.texts.data;
    let example = &data.examples[row];
    let prompt = prepared
        .loaded
        .tokenizer
        .decode(example.prompt_token_ids())?;
    let mut title = format!("group {}", data.assignments[row]);
    if let Some(label_idx) = example.label_idx {
        write!(title, ", {}", prepared.train.label_names[label_idx])
            .expect("a string takes any text");
    }
    write!(title, ": {}", excerpt(&prompt, 80)).expect("a string takes any text");
    Ok(title)
}

/// The number of prompts of each group, and its first prompt.
fn group_table(comparison: &Comparison<'_>) -> Result<HtmlTable, CliError> {
    let data = &comparison.texts.data.train.data;
    let mut table = HtmlTable::of_numbers(
        "Groups of the training",
        ["group", "prompts", "one of them"],
    )
    .with_words(2);
    for cluster_idx in 0..comparison.config.training.num_clusters {
        let members = || {
            let assignments = data.assignments.iter().enumerate();
            assignments.filter(move |(_, found)| **found == cluster_idx)
        };
        let one = match members().next() {
            Some((row, _)) => prompt_title(comparison, data, row)?,
            None => String::new(),
        };
        table.row([cluster_idx.to_string(), members().count().to_string(), one]);
    }
    Ok(table)
}

/// The test examples on which the method and its baseline differ most, of the first seed.
pub(super) fn samples(
    report: &ComparisonReport,
    comparison: &Comparison<'_>,
    methods: &[MethodRuns],
) -> Result<Vec<Block>, CliError> {
    let Some(names) = report.headline else {
        return Ok(Vec::new());
    };
    let tokens_of = |method: Method| {
        let runs = methods.iter().find(|runs| runs.method == method);
        runs.map(|runs| &runs.scored[0].token_nlls)
    };
    let (Some(ours), Some(theirs)) = (tokens_of(names.method), tokens_of(names.baseline)) else {
        return Ok(Vec::new());
    };
    let gains: Vec<Vec<f32>> = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| {
            let pairs = ours.iter().zip(theirs);
            pairs.map(|(ours, theirs)| theirs - ours).collect()
        })
        .collect();
    let means: Vec<f64> = gains
        .iter()
        .map(|gains| gains.iter().map(|&gain| f64::from(gain)).sum::<f64>() / gains.len() as f64)
        .collect();
    let found = extremes(&means, NUM_SAMPLES);
    let tokenizer = &comparison.texts.data.loaded.tokenizer;
    let shown = |rows: &[usize]| -> Result<Vec<_>, CliError> {
        rows.iter()
            .map(|&row| {
                let example = &comparison.test.data.examples[row];
                let label = or_empty(example.label_idx, |label_idx| {
                    format!(", {}", comparison.test.label_names[label_idx])
                });
                let title = format!(
                    "{:+.3} nats per token; group {}{label}",
                    means[row], comparison.test.data.assignments[row]
                );
                Ok(sample(title, example, &gains[row], tokenizer)?)
            })
            .collect()
    };
    let title = |word| {
        format!(
            "Most {word} by {} instead of {}",
            names.method, names.baseline
        )
    };
    Ok(vec![
        heading("Texts"),
        Block::Samples {
            title: title("helped"),
            samples: shown(&found.highest)?,
        },
        Block::Samples {
            title: title("hurt"),
            samples: shown(&found.lowest)?,
        },
    ])
}
