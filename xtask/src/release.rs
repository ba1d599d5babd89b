//! `cargo xtask release --dry-run`: would every crate publish as it stands?
//!
//! Checks one version everywhere, a changelog entry for it, and what each package would contain. It never
//! publishes: that stays a decision of a person.

use anyhow::{bail, ensure};
use clap::Args;
use xshell::cmd;

use crate::workspace::{Member, Workspace};

/// Largest packaged file; anything bigger is a model or a data set that slipped in.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Options of `release`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// Only check; required, since publishing is done by hand
    #[arg(long)]
    dry_run: bool,
}

/// Reports everything that stands in the way of a release.
pub(crate) fn run(workspace: &Workspace, args: &ReleaseArgs) -> anyhow::Result<()> {
    ensure!(
        args.dry_run,
        "only `release --dry-run` exists: publish by hand, crate by crate, once it passes"
    );
    let published: Vec<&Member> = workspace.members.iter().filter(|m| m.publishable).collect();
    let Some(first) = published.first() else {
        bail!("no member of the workspace is publishable");
    };
    let version = first.version.as_str();

    let mut problems = Vec::new();
    for member in &published {
        if member.version != version {
            problems.push(format!(
                "{} has version {}, {} has {version}",
                member.name, member.version, first.name
            ));
        }
    }
    let manifest = std::fs::read_to_string(workspace.root.join("Cargo.toml"))?;
    problems.extend(internal_versions(&manifest, version)?);
    let changelog = std::fs::read_to_string(workspace.root.join("CHANGELOG.md"))?;
    problems.extend(changelog_problem(&changelog, version));

    let shell = workspace.shell()?;
    for member in &published {
        let name = &member.name;
        let listing = cmd!(
            shell,
            "cargo package --locked --list --allow-dirty -p {name}"
        )
        .quiet()
        .read()?;
        println!("{name} {version}: {} files", listing.lines().count());
        problems.extend(package_problems(member, &listing));
    }

    if problems.is_empty() {
        println!("ready: {} crates at version {version}", published.len());
        return Ok(());
    }
    for problem in &problems {
        println!("  {problem}");
    }
    bail!("{} things stand in the way of a release", problems.len())
}

/// Members must ask for each other in the version that would be published.
fn internal_versions(root_manifest: &str, version: &str) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = toml::from_str(root_manifest)?;
    let mut problems = Vec::new();
    if let Some(dependencies) = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(toml::Value::as_table)
    {
        for (name, spec) in dependencies {
            let asked = spec.get("version").and_then(toml::Value::as_str);
            if name.starts_with("chameleon-") && asked != Some(version) {
                problems.push(format!(
                    "workspace dependency {name} asks for {}, not {version}",
                    asked.unwrap_or("no version")
                ));
            }
        }
    }
    Ok(problems)
}

/// The changelog must tell users something about this version, under its number or under "Unreleased".
fn changelog_problem(changelog: &str, version: &str) -> Option<String> {
    let has_entry = [format!("## {version}"), "## Unreleased".to_owned()]
        .iter()
        .any(|heading| {
            changelog
                .split("\n## ")
                .map(|section| format!("## {}", section.trim_start_matches("## ")))
                .filter(|section| section.starts_with(heading.as_str()))
                .any(|section| section.lines().any(|line| line.starts_with("- ")))
        });
    (!has_entry)
        .then(|| format!("CHANGELOG.md has no entry for {version} and none under Unreleased"))
}

fn package_problems(member: &Member, listing: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !listing.lines().any(|line| line == "README.md") {
        problems.push(format!("{} ships no README.md", member.name));
    }
    for line in listing.lines() {
        let size = std::fs::metadata(member.dir.join(line)).map_or(0, |data| data.len());
        if size > MAX_FILE_BYTES {
            problems.push(format!("{} ships {line} of {size} bytes", member.name));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_asked_for_in_another_version_is_named() {
        let manifest = "[workspace.dependencies]\n\
            chameleon-core = { path = \"chameleon-core\", version = \"0.1.0\" }\n\
            serde = \"1\"\n";
        assert!(internal_versions(manifest, "0.1.0").unwrap().is_empty());
        let problems = internal_versions(manifest, "0.2.0").unwrap();
        assert_eq!(
            problems,
            ["workspace dependency chameleon-core asks for 0.1.0, not 0.2.0"]
        );
    }

    #[test]
    fn an_empty_unreleased_section_is_not_an_entry() {
        let empty = "# Changelog\n\n## Unreleased\n\n## 0.0.9\n\n- First.\n";
        assert!(changelog_problem(empty, "0.1.0").is_some());
        let filled = "# Changelog\n\n## Unreleased\n\n### Added\n\n- Something.\n";
        assert!(changelog_problem(filled, "0.1.0").is_none());
        let numbered = "# Changelog\n\n## Unreleased\n\n## 0.1.0 - today\n\n- Something.\n";
        assert!(changelog_problem(numbered, "0.1.0").is_none());
    }
}
