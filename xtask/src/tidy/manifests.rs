//! Rules about manifests: who may use whom, and that versions are written once.

use std::path::Path;

use super::Finding;
use crate::workspace::{Member, Section, Workspace};

/// Which members a member may depend on; nothing else is legal.
const EDGES: &[(&str, &[&str])] = &[
    ("chameleon-core", &[]),
    ("chameleon-cluster", &["chameleon-core"]),
    ("chameleon-hypernet", &["chameleon-core"]),
    (
        "chameleon-models",
        &["chameleon-core", "chameleon-cluster", "chameleon-hypernet"],
    ),
    (
        "chameleon-cli",
        &[
            "chameleon-core",
            "chameleon-cluster",
            "chameleon-hypernet",
            "chameleon-models",
        ],
    ),
    ("xtask", &[]),
    ("burn-once", &[]),
];

/// Outside crates that only some members may know.
const RESERVED: &[(&str, &[&str])] = &[
    ("clap", &["chameleon-cli", "xtask"]),
    ("axum", &["chameleon-cli"]),
    ("indicatif", &["chameleon-cli"]),
    ("tracing-subscriber", &["chameleon-cli"]),
    ("anyhow", &["xtask"]),
    ("tokenizers", &["chameleon-models"]),
    ("hf-hub", &["chameleon-models"]),
    ("memmap2", &["chameleon-models"]),
    ("candle-core", &["chameleon-models"]),
    ("linfa", &["chameleon-cluster"]),
    ("linfa-clustering", &["chameleon-cluster"]),
];

/// Lines up features of shared dependencies; any member may have it for its tests.
const FEATURE_HELPER: &str = "burn-once";

/// Edges between members, and between members and reserved outside crates.
pub(super) fn edges(workspace: &Workspace) -> Vec<Finding> {
    let names: Vec<&str> = workspace.members.iter().map(|m| m.name.as_str()).collect();
    workspace
        .members
        .iter()
        .flat_map(|member| {
            let manifest = member.dir.join("Cargo.toml");
            let path = manifest.strip_prefix(&workspace.root).unwrap_or(&manifest);
            illegal_edges(member, &names)
                .into_iter()
                .map(|message| Finding::new(path, 0, message))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn illegal_edges(member: &Member, members: &[&str]) -> Vec<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == member.name) else {
        return vec![format!(
            "{} has no row in the table of legal edges",
            member.name
        )];
    };
    let mut messages = Vec::new();
    for dependency in &member.dependencies {
        let name = dependency.name.as_str();
        let in_tests = dependency.section == Section::Dev;
        let inner = members.contains(&name);
        let excused = in_tests && (name == member.name || name == FEATURE_HELPER);
        if inner && !allowed.contains(&name) && !excused {
            messages.push(format!("{} may not depend on {name}", member.name));
        }
        let reserved = RESERVED.iter().find(|(reserved, _)| *reserved == name);
        if let Some((_, owners)) = reserved
            && !in_tests
            && member.name != FEATURE_HELPER
            && !owners.contains(&member.name.as_str())
        {
            messages.push(format!("{name} is for {} only", owners.join(" and ")));
        }
    }
    messages
}

/// Versions live in the root manifest; members write `workspace = true`.
pub(super) fn inherits_from_the_root(path: &Path, contents: &str) -> anyhow::Result<Vec<Finding>> {
    let manifest: toml::Table = toml::from_str(contents)?;
    if manifest.contains_key("workspace") {
        return Ok(Vec::new());
    }
    let mut tables = vec![&manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut findings = Vec::new();
    for table in tables {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, spec) in dependencies {
                let inherited = spec.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                // A crate that turns a feature of its own on for its tests.
                let itself = spec.get("path").and_then(toml::Value::as_str) == Some(".");
                if !inherited && !itself {
                    let message = format!("{section}.{name} does not say `workspace = true`");
                    findings.push(Finding::new(path, 0, message));
                }
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::Dependency;

    const MEMBERS: &[&str] = &[
        "chameleon-core",
        "chameleon-cluster",
        "chameleon-models",
        "burn-once",
    ];

    fn member(name: &str, dependencies: &[(&str, Section)]) -> Member {
        Member {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            dir: PathBuf::new(),
            publishable: true,
            dependencies: dependencies
                .iter()
                .map(|(name, section)| Dependency {
                    name: (*name).to_owned(),
                    section: *section,
                })
                .collect(),
            benches: Vec::new(),
            crate_roots: Vec::new(),
        }
    }

    #[test]
    fn models_may_know_clusters_and_not_the_other_way_round() {
        let edge = |from, to| illegal_edges(&member(from, &[(to, Section::Normal)]), MEMBERS);
        assert_eq!(edge("chameleon-models", "chameleon-cluster"), [""; 0]);
        assert_eq!(
            edge("chameleon-cluster", "chameleon-models"),
            ["chameleon-cluster may not depend on chameleon-models"]
        );
    }

    #[test]
    fn a_wrong_edge_in_tests_is_wrong_too() {
        let member = member("chameleon-core", &[("chameleon-cluster", Section::Dev)]);
        assert_eq!(illegal_edges(&member, MEMBERS).len(), 1);
    }

    #[test]
    fn a_crate_may_turn_on_its_own_features_for_tests() {
        let edges = [
            ("chameleon-core", Section::Dev),
            ("burn-once", Section::Dev),
        ];
        assert_eq!(
            illegal_edges(&member("chameleon-core", &edges), MEMBERS),
            [""; 0]
        );
    }

    #[test]
    fn the_command_line_parser_stays_in_the_program() {
        let member = member("chameleon-models", &[("clap", Section::Normal)]);
        assert_eq!(
            illegal_edges(&member, MEMBERS),
            ["clap is for chameleon-cli and xtask only"]
        );
    }

    #[test]
    fn an_unknown_member_needs_a_row() {
        assert_eq!(
            illegal_edges(&member("chameleon-new", &[]), MEMBERS).len(),
            1
        );
    }

    #[test]
    fn a_version_in_a_member_is_found() {
        let text = "[package]\nname = \"x\"\n\n[dependencies]\nserde = \"1\"\nrand.workspace = true\n\
            [target.'cfg(unix)'.dependencies]\nlibc = { version = \"0.2\" }\n\
            [dev-dependencies]\nx = { path = \".\", features = [\"flex\"] }\n";
        let found = inherits_from_the_root(Path::new("x/Cargo.toml"), text).unwrap();
        let messages: Vec<_> = found
            .iter()
            .map(|finding| finding.message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "dependencies.serde does not say `workspace = true`",
                "dependencies.libc does not say `workspace = true`"
            ]
        );
    }
}
