//! What `bench peers` can run: a name, our side, the peers, and what is to be reached.
//!
//! Our side is the example `peers` of chameleon-cli, given the name and the folder of inputs. A peer is a script in
//! `xtask/python`, given the folder of inputs, the number of threads, and whatever is listed here.

/// One piece of work that several programs do.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// What a round is, for a reader of the table.
    pub(super) about: &'static str,
    pub(super) peers: &'static [Peer],
}

/// Another program that does the same.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) script: &'static str,
    pub(super) args: &'static [&'static str],
    /// What the project wants to reach against this peer.
    pub(super) target: Target,
}

/// What a ratio, ours to theirs, may be at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) time: f64,
    pub(super) memory: Option<Memory>,
}

/// Which memory a target speaks of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Memory {
    /// Our peak divided by the peer's.
    PeakRatio(f64),
    /// What our rounds add, in bytes.
    Added(u64),
}

/// How far apart what both computed may lie.
pub(super) const TOLERANCE: f64 = 1e-3;

pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "train-step-smollm2",
        about: "training step, LoRA in all layers and a generated head, SmolLM2-135M shapes, 4 x 128 tokens",
        peers: &[Peer {
            name: "PyTorch + PEFT",
            script: "bench_train.py",
            args: &["smollm2"],
            target: STEP,
        }],
    },
    Workload {
        name: "train-step-gpt2",
        about: "training step, LoRA in all layers and a generated head, GPT-2 small shapes, 4 x 128 tokens",
        peers: &[Peer {
            name: "PyTorch + PEFT",
            script: "bench_train.py",
            args: &["gpt2"],
            target: STEP,
        }],
    },
    Workload {
        name: "head-loss",
        about: "loss at the head and its gradient, 1,024 rows x 49,152 tokens, width 576",
        peers: &[
            Peer {
                name: "PyTorch, all logits",
                script: "bench_head_loss.py",
                args: &["plain"],
                target: HEAD,
            },
            Peer {
                name: "PyTorch, 128 rows at a time",
                script: "bench_head_loss.py",
                args: &["chunked"],
                target: HEAD,
            },
        ],
    },
    Workload {
        name: "eval-forward",
        about: "scoring with the frozen model, SmolLM2-135M shapes, 4 x 512 tokens",
        peers: &[Peer {
            name: "Hugging Face",
            script: "bench_eval.py",
            args: &["smollm2"],
            target: Target {
                time: 1.0,
                memory: None,
            },
        }],
    },
    Workload {
        name: "published-recipe",
        about: "a whole run of the published recipe's shape, head only, GPT-2 small shapes, 16 lines x 64 tokens, 10 \
                epochs; states kept, trunk passed once",
        peers: &[Peer {
            name: "PyTorch, trunk passed in every epoch",
            script: "bench_published.py",
            args: &[],
            target: Target {
                time: 0.2,
                memory: None,
            },
        }],
    },
    Workload {
        name: "kmeans",
        about: "k-means, 36,718 x 768, 1,147 clusters, 10 steps from one start",
        peers: &[Peer {
            name: "scikit-learn",
            script: "bench_kmeans.py",
            args: &["lloyd"],
            target: Target {
                time: 1.0,
                memory: None,
            },
        }],
    },
    Workload {
        name: "kmeans-seeding",
        about: "greedy k-means++, 36,718 x 768, 1,147 clusters",
        peers: &[Peer {
            name: "scikit-learn",
            script: "bench_kmeans.py",
            args: &["seeding"],
            target: Target {
                time: 0.2,
                memory: None,
            },
        }],
    },
    Workload {
        name: "decode-f32",
        about: "64 tokens of one stream, f32, SmolLM2-135M shapes",
        peers: &[Peer {
            name: "Hugging Face",
            script: "bench_decode.py",
            args: &["f32"],
            target: Target {
                time: 0.667,
                memory: None,
            },
        }],
    },
    Workload {
        name: "decode-q4",
        about: "64 tokens of one stream, Q4_1 and Q8_0 kept packed, SmolLM2-135M shapes",
        peers: &[Peer {
            name: "llama.cpp",
            script: "bench_decode.py",
            args: &["packed"],
            target: Target {
                time: 1.0,
                memory: None,
            },
        }],
    },
];

const HEAD: Target = Target {
    time: 1.0,
    memory: Some(Memory::Added(64_000_000)),
};

const STEP: Target = Target {
    time: 1.0,
    memory: Some(Memory::PeakRatio(0.5)),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn every_peer_has_its_script() {
        let workspace = Workspace::locate().unwrap();
        for peer in WORKLOADS.iter().flat_map(|workload| workload.peers) {
            let script = workspace.root.join("xtask/python").join(peer.script);
            assert!(script.is_file(), "{} is missing", script.display());
        }
    }

    #[test]
    fn names_are_given_once() {
        let mut names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORKLOADS.len());
    }
}
