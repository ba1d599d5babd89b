//! `chameleon cluster`: clusters prompts, and reports quality and samples of the groups.

use std::collections::{BTreeMap, HashSet};

use burn::tensor::Tensor;
use chameleon_cluster::{
    Convergence, KMeans, KMeansConfig, LabelAgreement, SilhouetteSample, assign, cluster_sizes,
    label_agreement, silhouette,
};
use chameleon_models::data::{Example, TokenisedCorpus};
use chameleon_models::training::{CutTexts, check_encoding, encode_training_prompts};
use serde::Serialize;

use crate::{
    commands::{Context, texts},
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::ClusterConfig,
};

pub(crate) fn run(config: &ClusterConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let loaded = context.load_model(&config.model)?;
    let encoding = config.encoding;
    check_encoding(&loaded.model, encoding, config.span.seq_len)?;
    let seed = context.settings.seed;
    let CutTexts { corpus, examples } =
        config
            .data
            .all_examples(config.span, &loaded, seed, context)?;
    let embeddings = encode_training_prompts(&loaded.model, encoding, &examples, context).vectors;
    let kmeans = KMeansConfig::new(config.num_clusters)
        .with_engine(config.engine)
        .with_max_iterations(config.max_iterations)
        .fit(&embeddings, context.settings.seed)?;
    let groups = Groups {
        corpus: &corpus,
        examples: &examples,
        embeddings: &embeddings,
        kmeans: &kmeans,
    };
    let report = groups.report(config, context, |token_ids| {
        Ok(loaded.tokenizer.decode(token_ids)?)
    })?;
    context.output.results(&report)?;
    Ok(ExitStatus::Done)
}

/// The groups and their samples.
struct Groups<'a> {
    corpus: &'a TokenisedCorpus,
    examples: &'a [Example],
    embeddings: &'a Tensor<2>,
    kmeans: &'a KMeans,
}

impl Groups<'_> {
    fn report(
        &self,
        config: &ClusterConfig,
        context: &Context,
        decode: impl Fn(&[u32]) -> Result<String, CliError>,
    ) -> Result<ClusterReport, CliError> {
        let assignments = &self.kmeans.assignments;
        let sizes = cluster_sizes(assignments, config.num_clusters)?;
        // Quality measures need at least two groups.
        let occupied = sizes.sizes.len() - sizes.num_empty;
        let silhouette = (occupied > 1)
            .then(|| {
                let sample = SilhouetteSample::default();
                silhouette(self.embeddings, assignments, sample, context.settings.seed)
            })
            .transpose()?;
        let distances = assign(self.embeddings, &self.kmeans.centroids)?.distances;
        let mut members = vec![Vec::new(); config.num_clusters];
        for (example_idx, &cluster_idx) in assignments.iter().enumerate() {
            members[cluster_idx].push(example_idx);
        }
        let clusters = members
            .into_iter()
            .enumerate()
            .map(|(cluster_idx, mut members)| {
                let labels = self.count_labels(&members);
                let size = members.len();
                members.sort_by(|&left, &right| distances[left].total_cmp(&distances[right]));
                let nearest = self
                    .distinct(members, config.num_nearest)
                    .into_iter()
                    .map(|example_idx| self.prompt(example_idx, distances[example_idx], &decode))
                    .collect::<Result<_, _>>()?;
                Ok(ClusterRow {
                    cluster: cluster_idx,
                    size,
                    labels,
                    nearest,
                })
            })
            .collect::<Result<_, CliError>>()?;
        Ok(ClusterReport {
            num_prompts: self.examples.len(),
            num_documents: self.corpus.num_documents(),
            num_clusters: config.num_clusters,
            prefix: config.span.prefix,
            inertia: self.kmeans.inertia,
            silhouette,
            balance: sizes.balance,
            smallest: sizes.smallest,
            largest: sizes.largest,
            num_iterations: self.kmeans.num_iterations,
            converged: self.kmeans.convergence != Convergence::IterationLimit,
            agreement: self.agreement()?,
            clusters,
        })
    }

    /// The first examples with distinct prompts.
    fn distinct(&self, members: Vec<usize>, count: usize) -> Vec<usize> {
        let mut seen = HashSet::new();
        members
            .into_iter()
            .filter(|&example_idx| seen.insert(self.examples[example_idx].prompt_token_ids()))
            .take(count)
            .collect()
    }

    fn prompt(
        &self,
        example_idx: usize,
        distance: f32,
        decode: impl Fn(&[u32]) -> Result<String, CliError>,
    ) -> Result<NearPrompt, CliError> {
        let example = &self.examples[example_idx];
        Ok(NearPrompt {
            text: decode(example.prompt_token_ids())?,
            label: self
                .corpus
                .label_name(example.document_idx)
                .map(str::to_owned),
            origin: self.corpus.origin(example.document_idx).to_string(),
            distance,
        })
    }

    /// Counts of the labels among some examples, the most frequent first.
    fn count_labels(&self, members: &[usize]) -> Vec<LabelCount> {
        let mut counts = BTreeMap::new();
        for &example_idx in members {
            if let Some(label_idx) = self.examples[example_idx].label_idx {
                *counts.entry(label_idx).or_insert(0) += 1;
            }
        }
        let mut counts: Vec<_> = counts
            .into_iter()
            .map(|(label_idx, count)| LabelCount {
                label: self.corpus.label_names()[label_idx].clone(),
                count,
            })
            .collect();
        counts.sort_by_key(|entry| std::cmp::Reverse(entry.count));
        counts
    }

    /// Agreement of the groups with the labels, among the labelled examples.
    fn agreement(&self) -> Result<Option<Agreement>, CliError> {
        let labelled: Vec<(usize, usize)> = self
            .examples
            .iter()
            .zip(&self.kmeans.assignments)
            .filter_map(|(example, &cluster_idx)| Some((cluster_idx, example.label_idx?)))
            .collect();
        if labelled.is_empty() {
            return Ok(None);
        }
        let (assignments, labels): (Vec<_>, Vec<_>) = labelled.into_iter().unzip();
        let LabelAgreement {
            purity,
            normalized_mutual_information,
            adjusted_rand,
        } = label_agreement(&assignments, &labels)?;
        Ok(Some(Agreement {
            num_labels: self.corpus.label_names().len(),
            num_labelled: labels.len(),
            purity,
            normalized_mutual_information,
            adjusted_rand,
        }))
    }
}

#[derive(Debug, Serialize)]
struct ClusterReport {
    num_prompts: usize,
    num_documents: usize,
    num_clusters: usize,
    prefix: usize,
    inertia: f64,
    silhouette: Option<f64>,
    balance: f64,
    smallest: usize,
    largest: usize,
    num_iterations: usize,
    converged: bool,
    agreement: Option<Agreement>,
    clusters: Vec<ClusterRow>,
}

#[derive(Debug, Serialize)]
struct Agreement {
    num_labels: usize,
    num_labelled: usize,
    purity: f64,
    normalized_mutual_information: f64,
    adjusted_rand: f64,
}

#[derive(Debug, Serialize)]
struct ClusterRow {
    cluster: usize,
    size: usize,
    labels: Vec<LabelCount>,
    nearest: Vec<NearPrompt>,
}

#[derive(Debug, Serialize)]
struct LabelCount {
    label: String,
    count: usize,
}

#[derive(Debug, Serialize)]
struct NearPrompt {
    text: String,
    label: Option<String>,
    origin: String,
    distance: f32,
}

impl Results for ClusterReport {
    fn write_text(&self, page: &mut Page) {
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row(
            "prompts",
            format!(
                "{} of {} tokens each, from {} documents",
                self.num_prompts, self.prefix, self.num_documents
            ),
        );
        row(
            "groups",
            format!(
                "{}, from {} to {} prompts, balance {:.3}",
                self.num_clusters, self.smallest, self.largest, self.balance
            ),
        );
        let ending = if self.converged {
            "converged"
        } else {
            "stopped"
        };
        row(
            "inertia",
            format!(
                "{:.4}, {ending} after {} iterations",
                self.inertia, self.num_iterations
            ),
        );
        if let Some(silhouette) = self.silhouette {
            row("silhouette", format!("{silhouette:.3}"));
        }
        if let Some(agreement) = &self.agreement {
            row(
                "labels",
                format!(
                    "{}: purity {:.3}, mutual information {:.3}, adjusted Rand {:.3}",
                    agreement.num_labels,
                    agreement.purity,
                    agreement.normalized_mutual_information,
                    agreement.adjusted_rand
                ),
            );
        }
        page.table(&table);
        for cluster in &self.clusters {
            cluster.write_text(page);
        }
    }
}

/// Largest number of labels shown for a group.
const MAX_LABELS: usize = 4;
/// Largest number of characters shown of a prompt.
const MAX_CHARS: usize = 80;

impl ClusterRow {
    fn write_text(&self, page: &mut Page) {
        let mut labels: Vec<_> = self
            .labels
            .iter()
            .take(MAX_LABELS)
            .map(|entry| format!("{} {}", entry.label, entry.count))
            .collect();
        if self.labels.len() > MAX_LABELS {
            labels.push(format!("{} more", self.labels.len() - MAX_LABELS));
        }
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!(" ({})", labels.join(", "))
        };
        page.heading(&format!(
            "group {}: {} prompts{labels}",
            self.cluster, self.size
        ));
        let mut table = Table::new([Column::number(""), Column::text("")]);
        for prompt in &self.nearest {
            table.row([
                format!("{:.3}", prompt.distance),
                texts::excerpt(&prompt.text, MAX_CHARS),
            ]);
        }
        page.table(&table);
    }
}
