//! What `bench peers` can run: a name, our side, the peers, and what is to be reached.
//!
//! Our side is the example `peers` of chameleon-cli, given the name and the folder of inputs. A peer is a script in
//! `xtask/python`, given the folder of inputs, the number of threads, and whatever is listed here; or our side again,
//! doing something else.

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
    pub(super) program: Program,
    pub(super) work: Work,
    /// What the project wants to reach against this peer.
    pub(super) target: Target,
}

/// Who a peer is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Program {
    /// A script, and what follows its folder and its number of threads.
    Script(&'static str, &'static [&'static str]),
    /// Our own side with another of its workloads.
    Ours(&'static str),
}

/// What a peer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// What we compute, and the values have to agree.
    Same,
    /// Something that ours is measured by, with values of its own.
    Yardstick,
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
            program: Program::Script("bench_train.py", &["smollm2"]),
            work: Work::Same,
            target: STEP,
        }],
    },
    Workload {
        name: "train-step-gpt2",
        about: "training step, LoRA in all layers and a generated head, GPT-2 small shapes, 4 x 128 tokens",
        peers: &[Peer {
            name: "PyTorch + PEFT",
            program: Program::Script("bench_train.py", &["gpt2"]),
            work: Work::Same,
            target: STEP,
        }],
    },
    Workload {
        name: "head-loss",
        about: "loss at the head and its gradient, 1,024 rows x 49,152 tokens, width 576",
        peers: &[
            Peer {
                name: "PyTorch, all logits",
                program: Program::Script("bench_head_loss.py", &["plain"]),
                work: Work::Same,
                target: HEAD,
            },
            Peer {
                name: "PyTorch, 128 rows at a time",
                program: Program::Script("bench_head_loss.py", &["chunked"]),
                work: Work::Same,
                target: HEAD,
            },
        ],
    },
    Workload {
        name: "eval-forward",
        about: "scoring with the frozen model, SmolLM2-135M shapes, 4 x 512 tokens",
        peers: &[Peer {
            name: "Hugging Face",
            program: Program::Script("bench_eval.py", &["smollm2"]),
            work: Work::Same,
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
            program: Program::Script("bench_published.py", &[]),
            work: Work::Same,
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
            program: Program::Script("bench_kmeans.py", &["lloyd"]),
            work: Work::Same,
            target: Target {
                time: 1.0,
                memory: None,
            },
        }],
    },
    Workload {
        name: "kmeans-against-linfa",
        about: "k-means, 36,718 x 768, 1,147 clusters, 10 steps from one start",
        peers: &[Peer {
            name: "linfa in f64",
            program: Program::Ours("kmeans-linfa"),
            work: Work::Same,
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
            program: Program::Script("bench_kmeans.py", &["seeding"]),
            work: Work::Same,
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
            program: Program::Script("bench_decode.py", &["f32"]),
            work: Work::Same,
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
            program: Program::Script("bench_decode.py", &["packed"]),
            work: Work::Same,
            target: Target {
                time: 1.0,
                memory: None,
            },
        }],
    },
    Workload {
        name: "decode-groups",
        about: "16 prompts in 8 groups, generated heads of rank 8, 64 tokens each, f32, SmolLM2-135M shapes",
        peers: &[base_only(1.05), adapter_names(&[])],
    },
    Workload {
        name: "decode-groups-throughout",
        about: "the same, cores generated for every linear module of every layer as well",
        peers: &[
            base_only(1.5),
            adapter_names(&["groups_throughout.safetensors"]),
        ],
    },
    Workload {
        name: "decode-memory",
        about: "the same as `decode-groups` with a memory of 32,768 entries for each group",
        peers: &[Peer {
            name: "ourselves without memories",
            program: Program::Ours("decode-groups"),
            work: Work::Yardstick,
            target: Target {
                time: 1.1,
                memory: None,
            },
        }],
    },
    Workload {
        name: "generate-factors",
        about: "factors of 64 new groups, one after the other, `core` of rank 8, SmolLM2-135M shapes",
        peers: &[
            Peer {
                name: "64 tokens of one stream, f32",
                program: Program::Ours("decode-f32"),
                work: Work::Yardstick,
                target: FACTORS,
            },
            Peer {
                name: "64 tokens of one stream, packed",
                program: Program::Ours("decode-q4"),
                work: Work::Yardstick,
                target: FACTORS,
            },
        ],
    },
];

/// The prompts of the groups without any adapter.
const fn base_only(time: f64) -> Peer {
    Peer {
        name: "ourselves, base model only",
        program: Program::Ours("decode-groups-base"),
        work: Work::Yardstick,
        target: Target { time, memory: None },
    }
}

/// The factors of the groups as adapters of PEFT, named row by row.
const fn adapter_names(args: &'static [&'static str]) -> Peer {
    Peer {
        name: "PEFT with `adapter_names`",
        program: Program::Script("bench_groups.py", args),
        work: Work::Same,
        target: Target {
            time: 0.2,
            memory: None,
        },
    }
}

const FACTORS: Target = Target {
    time: 0.1,
    memory: None,
};

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
    fn every_side_has_its_program() {
        let workspace = Workspace::locate().unwrap();
        let ours = workspace.root.join("chameleon-cli/examples/peers/main.rs");
        let ours = std::fs::read_to_string(ours).unwrap();
        let knows = |name: &str| ours.contains(&format!("\"{name}\""));
        for workload in WORKLOADS {
            assert!(knows(workload.name), "nobody runs {}", workload.name);
        }
        for peer in WORKLOADS.iter().flat_map(|workload| workload.peers) {
            match peer.program {
                Program::Script(script, _) => {
                    let script = workspace.root.join("xtask/python").join(script);
                    assert!(script.is_file(), "{} is missing", script.display());
                }
                Program::Ours(name) => assert!(knows(name), "nobody runs {name}"),
            }
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
