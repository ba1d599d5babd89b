//! Clients that others have written, as they are.

use std::process::Command;

use crate::client::{ADAPTED, MODEL, Served, adapter_dir, fixture};

#[test]
fn public_clients_are_served() {
    let served = Served::adapted(&[]);
    let python = std::env::var("CHAMELEON_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = fixture("../../serve/python/clients.py");
    let address = format!("http://{}", served.address);
    let output = Command::new(&python)
        .arg(script)
        .args([address.as_str(), MODEL, ADAPTED])
        .output();
    let Ok(output) = output else {
        println!("SKIPPED: there is no `{python}`");
        return;
    };
    // What was skipped stands here.
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_page_works_in_a_browser() {
    let python = std::env::var("CHAMELEON_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python)
        .arg(fixture("../../serve/python/page.py"))
        .arg(env!("CARGO_BIN_EXE_chameleon"))
        .output();
    let Ok(output) = output else {
        println!("SKIPPED: there is no `{python}`");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{complaints}");
}

/// The README's lines that start the server and ask it.
fn readme_commands() -> (String, String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = || {
        let blocks = text.split("```sh\n").skip(1);
        blocks.map(|block| block.split("```").next().unwrap())
    };
    let serve = blocks()
        .flat_map(str::lines)
        .find(|line| line.starts_with("chameleon serve "));
    let ask = blocks().find(|block| block.starts_with("curl "));
    (serve.unwrap().to_owned(), ask.unwrap().replace("\\\n", " "))
}

#[test]
fn the_commands_of_the_readme_work() {
    let (serve, ask) = readme_commands();
    let flags: Vec<&str> = serve.split_whitespace().collect();
    let ["chameleon", "serve", "--model", "MODEL", flags @ ..] = flags.as_slice() else {
        panic!("{serve}");
    };
    let mix = adapter_dir().join("mix");
    let flags = flags.join(" ");
    let flags = flags.replace("mix=adapter", &format!("mix={}", mix.display()));
    let served = Served::start_bare(&flags.split(' ').collect::<Vec<_>>());
    let ask = ask.replace("127.0.0.1:8080", &served.address);
    let output = Command::new("sh").args(["-c", &ask]).output().unwrap();
    if output.status.code() == Some(127) {
        println!("SKIPPED: there is no `curl`");
        return;
    }
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["model"], "small:mix");
    assert_eq!(answer["choices"][0]["chameleon"]["condition"], "centroid");
}
