//! The sizes of the paper's two experiments.

use serde::{Deserialize, Serialize};

/// The paper's experiments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Experiment {
    /// WikiText-2 raw, line by line.
    Wikitext,
    /// Alpaca-cleaned, instructions with answers.
    Alpaca,
}

impl std::fmt::Display for Experiment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wikitext => "wikitext",
            Self::Alpaca => "alpaca",
        })
    }
}

/// The settings that both recipes share, as the paper's experiments have them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaperSettings {
    /// Largest number of rows of a batch; the number of clusters is the number of rows divided by it.
    pub batch_size: usize,
    /// Largest number of tokens of a row.
    pub seq_len: usize,
    /// Passes over the data.
    pub num_epochs: usize,
    /// Rank of the factors.
    pub rank: usize,
    /// The script's `alpha`.
    pub alpha: f64,
    /// `AdamW`'s learning rate, constant.
    pub learning_rate: f64,
    /// Decay of `AdamW`, `PyTorch`'s default.
    pub weight_decay: f64,
    /// Steps of k-means.
    pub lloyd_steps: usize,
    /// Widths of the hypernetwork.
    pub hidden_sizes: Vec<usize>,
    /// Its dropout.
    pub dropout: f64,
}

impl PaperSettings {
    /// WikiText-2 raw.
    pub fn wikitext() -> Self {
        Self {
            batch_size: 32,
            seq_len: 256,
            num_epochs: 10,
            rank: 4,
            alpha: 1.0,
            learning_rate: 5e-4,
            weight_decay: 0.01,
            lloyd_steps: 10,
            hidden_sizes: vec![64, 32],
            dropout: 0.5,
        }
    }

    /// Alpaca-cleaned.
    pub fn alpaca() -> Self {
        Self {
            batch_size: 16,
            seq_len: 512,
            learning_rate: 2e-4,
            ..Self::wikitext()
        }
    }

    /// The number of clusters for `num_rows`: as many as batches, rounded down, and at least one.
    pub fn num_clusters(&self, num_rows: usize) -> usize {
        (num_rows / self.batch_size).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wikitext_has_a_cluster_for_each_full_batch() {
        let settings = PaperSettings::wikitext();
        assert_eq!(settings.num_clusters(36_718), 1147);
        assert_eq!(settings.num_clusters(5), 1);
    }
}
