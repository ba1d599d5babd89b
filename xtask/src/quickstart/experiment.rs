//! What the program built here is asked to do: compare, then train an adapter to keep.
//!
//! Both run on the same texts with the same settings, so the hidden states that the first computes serve the
//! second. It takes a few minutes on two cores.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use xshell::{Shell, cmd};

/// Examples used of a person's own texts, at most; a quarter as many are tested on.
const MAX_OWN_EXAMPLES: &str = "480";

/// Settings of both commands: as many groups as there are kinds, and no third epoch, after which the loss of `core` on
/// the validation texts rose. Otherwise what the program does unasked.
const SETTINGS: &[&str] = &["--clusters", "5", "--epochs", "2"];

/// What every method tries in the comparison: two, for the time it takes.
const LEARNING_RATES: &str = "0.0005,0.002";

/// What to train and test on.
#[derive(Debug)]
pub(crate) enum Texts {
    /// The corpus cut from the dependencies.
    Gathered {
        train: PathBuf,
        valid: PathBuf,
        test: PathBuf,
    },
    /// What somebody brought along; the program keeps a part of it aside.
    Own { data: PathBuf },
}

/// The program, the model, the texts, and where the results go.
#[derive(Debug)]
pub(crate) struct Experiment {
    pub(crate) program: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) texts: Texts,
    pub(crate) out: PathBuf,
}

impl Experiment {
    /// Prints the table of methods.
    pub(crate) fn compare(&self, shell: &Shell) -> anyhow::Result<()> {
        self.run(shell, "compare", &self.compare_flags())
    }

    /// Leaves an adapter and what its groups remember behind.
    pub(crate) fn train(&self, shell: &Shell) -> anyhow::Result<()> {
        self.run(shell, "train", &self.train_flags())
    }

    /// Names the files, and what to type next.
    pub(crate) fn say_where(&self) {
        let adapter = adapter(&self.out);
        println!(
            "report   {}",
            table(&self.out).join("report.html").display()
        );
        println!("adapter  {}", adapter.display());
        match &self.texts {
            Texts::Gathered { train, .. } => println!("texts    {}", train.display()),
            Texts::Own { data } => println!("texts    {}", data.display()),
        }
        println!("model    {}", self.model.display());
        println!(
            "\nnext:\n  {} generate --model {} --adapter {} \"The licence of this crate\"",
            self.program.display(),
            self.model.display(),
            adapter.display()
        );
    }

    fn compare_flags(&self) -> Vec<OsString> {
        let mut flags = self.shared_flags();
        if let Texts::Gathered { valid, test, .. } = &self.texts {
            flags.extend(["--valid".into(), valid.into()]);
            flags.extend(["--test".into(), test.into()]);
        }
        flags.extend(["--lr".into(), LEARNING_RATES.into()]);
        flags.extend(["--out".into(), table(&self.out).into()]);
        flags
    }

    fn train_flags(&self) -> Vec<OsString> {
        let mut flags = self.shared_flags();
        if let Texts::Gathered { valid, .. } = &self.texts {
            flags.extend(["--valid".into(), valid.into()]);
        }
        flags.push("--memory".into());
        flags.extend(["--out".into(), adapter(&self.out).into()]);
        flags
    }

    fn shared_flags(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = vec!["--model".into(), (&self.model).into()];
        match &self.texts {
            Texts::Gathered { train, .. } => {
                flags.extend(["--data".into(), train.into()]);
                flags.extend(["--label-field".into(), "label".into()]);
            }
            Texts::Own { data } => {
                flags.extend(["--data".into(), data.into()]);
                flags.extend(["--max-examples".into(), MAX_OWN_EXAMPLES.into()]);
            }
        }
        flags.extend(SETTINGS.iter().map(OsString::from));
        flags
    }

    fn run(&self, shell: &Shell, command: &str, flags: &[OsString]) -> anyhow::Result<()> {
        let program = &self.program;
        cmd!(shell, "{program} {command} {flags...}")
            .run()
            .with_context(|| format!("`chameleon {command}` failed"))
    }
}

/// The program writes over nothing. In our own folder the results of an earlier quick start make room; in a folder
/// that somebody named, they stay.
pub(crate) fn make_room(out: &Path, is_named: bool) -> anyhow::Result<()> {
    for earlier in [adapter(out), table(out)] {
        if !earlier.exists() {
            continue;
        }
        ensure!(
            !is_named,
            "{} is there already; name another folder with --out",
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

    fn experiment(texts: Texts) -> Experiment {
        Experiment {
            program: "chameleon".into(),
            model: "model.gguf".into(),
            texts,
            out: "out".into(),
        }
    }

    #[test]
    fn own_texts_are_bounded_and_split_by_the_program() {
        let flags = experiment(Texts::Own {
            data: "mine".into(),
        })
        .shared_flags();
        assert!(flags.contains(&"--max-examples".into()));
        assert!(!flags.contains(&"--label-field".into()));
    }

    #[test]
    fn what_the_program_does_unasked_is_compared_and_trained_with_its_memory() {
        let experiment = experiment(Texts::Gathered {
            train: "train.jsonl".into(),
            valid: "valid.jsonl".into(),
            test: "test.jsonl".into(),
        });
        let (compare, train) = (experiment.compare_flags(), experiment.train_flags());
        for flag in ["--methods", "--method"] {
            assert!(!compare.contains(&flag.into()) && !train.contains(&flag.into()));
        }
        assert!(train.contains(&"--memory".into()));
        assert!(compare.contains(&"--test".into()) && !train.contains(&"--test".into()));
    }

    #[test]
    fn results_in_a_named_folder_stay() {
        for name in ["adapter", "compare"] {
            let dir = tempfile::tempdir().unwrap();
            make_room(dir.path(), true).unwrap();
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let error = make_room(dir.path(), true).unwrap_err();
            assert!(error.to_string().contains("--out"), "{error}");
            make_room(dir.path(), false).unwrap();
            assert!(!dir.path().join(name).exists());
        }
    }
}
