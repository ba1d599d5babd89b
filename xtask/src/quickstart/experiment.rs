//! What the program built here does with the texts: compare methods, then train an adapter to keep.
//!
//! Both run on the same texts with the same settings, so the hidden states that the first computes serve the
//! second. It takes a few minutes on two cores.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use xshell::{Shell, cmd};

/// Examples used of texts given by `--data`, at most; a quarter as many are tested on.
const MAX_OWN_EXAMPLES: &str = "480";

/// Settings of both commands: as many groups as there are kinds, and no third epoch, after which the loss of `core` on
/// the validation texts rose. All else is the program's default.
const SETTINGS: &[&str] = &["--clusters", "5", "--epochs", "2"];

/// What every method tries in the comparison: two, for the time it takes.
const LEARNING_RATES: &str = "0.0005,0.002";

/// The program, the model, the texts, and where the results go.
#[derive(Debug)]
pub(crate) struct Experiment {
    pub(crate) program: PathBuf,
    pub(crate) model: PathBuf,
    /// What is trained on.
    pub(crate) data: PathBuf,
    /// Of the corpus cut from the dependencies; of other texts the program holds out a part itself.
    pub(crate) held_out: Option<HeldOut>,
    pub(crate) out: PathBuf,
}

/// Texts of the corpus that are not trained on.
#[derive(Debug)]
pub(crate) struct HeldOut {
    pub(crate) valid: PathBuf,
    pub(crate) test: PathBuf,
}

impl Experiment {
    /// Prints the table of methods.
    pub(crate) fn compare(&self, shell: &Shell) -> anyhow::Result<()> {
        self.run(shell, "compare", &self.compare_flags())
    }

    /// Writes an adapter with its memory.
    pub(crate) fn train(&self, shell: &Shell) -> anyhow::Result<()> {
        self.run(shell, "train", &self.train_flags())
    }

    /// Prints where the results are, and a command to try next.
    pub(crate) fn print_paths(&self) {
        let (program, model) = (self.program.display(), self.model.display());
        let report = table(&self.out).join("report.html");
        let adapter = adapter(&self.out);
        let adapter = adapter.display();
        println!("report   {}", report.display());
        println!("adapter  {adapter}");
        println!("texts    {}", self.data.display());
        println!("model    {model}");
        println!(
            "\nnext:\n  {program} generate --model {model} --adapter {adapter} \"The licence of this crate\""
        );
    }

    fn compare_flags(&self) -> Vec<OsString> {
        let mut flags = self.shared_flags();
        if let Some(HeldOut { test, .. }) = &self.held_out {
            flags.extend(["--test".into(), test.into()]);
        }
        flags.extend(["--lr".into(), LEARNING_RATES.into()]);
        flags.extend(["--out".into(), table(&self.out).into()]);
        flags
    }

    fn train_flags(&self) -> Vec<OsString> {
        let mut flags = self.shared_flags();
        flags.push("--memory".into());
        flags.extend(["--out".into(), adapter(&self.out).into()]);
        flags
    }

    fn shared_flags(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = vec!["--model".into(), (&self.model).into()];
        flags.extend(["--data".into(), (&self.data).into()]);
        flags.extend(SETTINGS.iter().map(OsString::from));
        match &self.held_out {
            Some(HeldOut { valid, .. }) => {
                flags.extend(["--label-field".into(), "label".into()]);
                flags.extend(["--valid".into(), valid.into()]);
            }
            None => flags.extend(["--max-examples".into(), MAX_OWN_EXAMPLES.into()]),
        }
        flags
    }

    fn run(&self, shell: &Shell, command: &str, flags: &[OsString]) -> anyhow::Result<()> {
        let program = &self.program;
        cmd!(shell, "{program} {command} {flags...}")
            .run()
            .with_context(|| format!("`chameleon {command}` failed"))
    }
}

/// The program never overwrites results. Those of an earlier quick start are removed from our own folder; from a folder
/// given by `--out` they are not.
pub(crate) fn remove_earlier_results(out: &Path, is_named: bool) -> anyhow::Result<()> {
    for earlier in [adapter(out), table(out)] {
        if !earlier.exists() {
            continue;
        }
        ensure!(
            !is_named,
            "{} exists; name another folder with --out",
            earlier.display()
        );
        std::fs::remove_dir_all(&earlier)
            .with_context(|| format!("cannot remove {}", earlier.display()))?;
    }
    Ok(())
}

fn adapter(out: &Path) -> PathBuf {
    out.join("adapter")
}

fn table(out: &Path) -> PathBuf {
    out.join("compare")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(held_out: Option<HeldOut>) -> Experiment {
        Experiment {
            program: "chameleon".into(),
            model: "model.gguf".into(),
            data: "data".into(),
            held_out,
            out: "out".into(),
        }
    }

    #[test]
    fn own_texts_are_bounded_and_split_by_the_program() {
        let flags = experiment(None).shared_flags();
        assert!(flags.contains(&"--max-examples".into()));
        assert!(!flags.contains(&"--label-field".into()));
    }

    #[test]
    fn the_default_methods_are_compared_and_trained_with_a_memory() {
        let experiment = experiment(Some(HeldOut {
            valid: "valid.jsonl".into(),
            test: "test.jsonl".into(),
        }));
        let (compare, train) = (experiment.compare_flags(), experiment.train_flags());
        for flag in ["--methods", "--method"] {
            assert!(!compare.contains(&flag.into()) && !train.contains(&flag.into()));
        }
        assert!(train.contains(&"--memory".into()));
        assert!(compare.contains(&"--valid".into()) && train.contains(&"--valid".into()));
        assert!(compare.contains(&"--test".into()) && !train.contains(&"--test".into()));
    }

    #[test]
    fn results_in_a_named_folder_stay() {
        for name in ["adapter", "compare"] {
            let dir = tempfile::tempdir().unwrap();
            remove_earlier_results(dir.path(), true).unwrap();
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let error = remove_earlier_results(dir.path(), true).unwrap_err();
            assert!(error.to_string().contains("--out"), "{error}");
            remove_earlier_results(dir.path(), false).unwrap();
            assert!(!dir.path().join(name).exists());
        }
    }
}
