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

/// The memory that a target limits.
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
        peers: &[training(&["smollm2"])],
    },
    Workload {
        name: "train-step-gpt2",
        about: "training step, LoRA in all layers and a generated head, GPT-2 small shapes, 4 x 128 tokens",
        peers: &[training(&["gpt2"])],
    },
    Workload {
        name: "head-loss",
        about: "loss at the head and its gradient, 1,024 rows x 49,152 tokens, width 576",
        peers: &[
            head_loss("PyTorch, all logits", &["plain"]),
            head_loss("PyTorch, 128 rows at a time", &["chunked"]),
        ],
    },
    Workload {
        name: "eval-forward",
        about: "scoring with the frozen model, SmolLM2-135M shapes, 4 x 512 tokens",
        peers: &[Peer::script(
            "Hugging Face",
            "bench_eval.py",
            &["smollm2"],
            1.0,
        )],
    },
    Workload {
        name: "published-recipe",
        about: "a whole run of the published recipe's shape, head only, GPT-2 small shapes, 16 lines x 64 tokens, 10 \
                epochs; states kept, trunk passed once",
        peers: &[Peer::script(
            "PyTorch, trunk passed in every epoch",
            "bench_published.py",
            &[],
            0.2,
        )],
    },
    Workload {
        name: "kmeans",
        about: "k-means, 36,718 x 768, 1,147 clusters, 10 steps from one start",
        peers: &[Peer::script(
            "scikit-learn",
            "bench_kmeans.py",
            &["lloyd"],
            1.0,
        )],
    },
    Workload {
        name: "kmeans-against-linfa",
        about: "k-means, 36,718 x 768, 1,147 clusters, 10 steps from one start",
        peers: &[Peer::new(
            "linfa in f64",
            Program::Ours("kmeans-linfa"),
            1.0,
        )],
    },
    Workload {
        name: "kmeans-seeding",
        about: "greedy k-means++, 36,718 x 768, 1,147 clusters",
        peers: &[Peer::script(
            "scikit-learn",
            "bench_kmeans.py",
            &["seeding"],
            0.2,
        )],
    },
    Workload {
        name: "decode-f32",
        about: "64 tokens of one stream, f32, SmolLM2-135M shapes",
        peers: &[Peer::script(
            "Hugging Face",
            "bench_decode.py",
            &["f32"],
            0.667,
        )],
    },
    Workload {
        name: "decode-q4",
        about: "64 tokens of one stream, Q4_1 and Q8_0 kept packed, SmolLM2-135M shapes",
        peers: &[Peer::script(
            "llama.cpp",
            "bench_decode.py",
            &["packed"],
            1.0,
        )],
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
        peers: &[Peer::yardstick(
            "ourselves without memories",
            "decode-groups",
            1.1,
        )],
    },
    Workload {
        name: "generate-factors",
        about: "factors of 64 new groups, one after the other, `core` of rank 8, SmolLM2-135M shapes",
        peers: &[
            Peer::yardstick("64 tokens of one stream, f32", "decode-f32", 0.1),
            Peer::yardstick("64 tokens of one stream, packed", "decode-q4", 0.1),
        ],
    },
];

impl Peer {
    /// A program that computes the same, and the time that ours may take, at most, as a part of its time.
    const fn new(name: &'static str, program: Program, time: f64) -> Self {
        Self {
            name,
            program,
            work: Work::Same,
            target: Target { time, memory: None },
        }
    }

    const fn script(
        name: &'static str,
        script: &'static str,
        args: &'static [&'static str],
        time: f64,
    ) -> Self {
        Self::new(name, Program::Script(script, args), time)
    }

    /// Our own side with another workload, whose values differ.
    const fn yardstick(name: &'static str, workload: &'static str, time: f64) -> Self {
        Self {
            work: Work::Yardstick,
            ..Self::new(name, Program::Ours(workload), time)
        }
    }

    const fn with_memory(self, memory: Memory) -> Self {
        Self {
            target: Target {
                memory: Some(memory),
                ..self.target
            },
            ..self
        }
    }
}

const fn training(args: &'static [&'static str]) -> Peer {
    Peer::script("PyTorch + PEFT", "bench_train.py", args, 1.0).with_memory(Memory::PeakRatio(0.5))
}

const fn head_loss(name: &'static str, args: &'static [&'static str]) -> Peer {
    Peer::script(name, "bench_head_loss.py", args, 1.0).with_memory(Memory::Added(64_000_000))
}

/// The prompts of the groups without any adapter.
const fn base_only(time: f64) -> Peer {
    Peer::yardstick("ourselves, base model only", "decode-groups-base", time)
}

/// The factors of the groups as adapters of PEFT, named row by row.
const fn adapter_names(args: &'static [&'static str]) -> Peer {
    Peer::script("PEFT with `adapter_names`", "bench_groups.py", args, 0.2)
}

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
            assert!(knows(workload.name), "no program runs {}", workload.name);
        }
        for peer in WORKLOADS.iter().flat_map(|workload| workload.peers) {
            match peer.program {
                Program::Script(script, _) => {
                    let script = workspace.root.join("xtask/python").join(script);
                    assert!(script.is_file(), "{} is missing", script.display());
                }
                Program::Ours(name) => assert!(knows(name), "no program runs {name}"),
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
