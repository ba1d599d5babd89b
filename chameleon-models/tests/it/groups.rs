//! Groups by key: exemplars change the answers of their own group, at once, and of no other.

use std::path::Path;

use chameleon_hypernet::Condition;
use chameleon_models::adapter::NewExemplar;
use chameleon_models::engine::{
    Engine, EngineError, Event, GroupExemplarSource, GroupState, Logprobs, Request, Ticket,
};

use crate::engine::{adapter, options};
use crate::load::tiny_with_letters;

const ADAPTER: &str = "tenants";
/// The kinds of adapters that use exemplars.
const KINDS: [&str; 2] = ["attention", "steps"];

fn engine(folder: &Path, kind: &str) -> Engine {
    let engine = Engine::start(tiny_with_letters(), options()).unwrap();
    let adapter = adapter(engine.model(), kind, Condition::Centroid);
    let groups = GroupExemplarSource::open(folder).unwrap();
    engine
        .load_adapter_with_groups(ADAPTER, adapter, groups)
        .unwrap();
    engine
}

fn exemplars(of: usize, num: usize) -> Vec<NewExemplar> {
    let letter = |idx: usize| char::from(b'a' + u8::try_from(idx % 16).unwrap());
    (0..num)
        .map(|idx| NewExemplar {
            prompt: format!("{}{} ", letter(3 * of + idx), letter(idx)),
            answer: format!("{}{}", letter(5 * of), letter(5 * of + 1)),
        })
        .collect()
}

fn request(engine: &Engine, text: &str, key: Option<&str>) -> Request {
    let prompt = engine.model().tokenizer.encode(text).unwrap();
    Request {
        adapter: Some(ADAPTER.to_owned()),
        group: key.map(str::to_owned),
        logprobs: Logprobs::Top(2),
        ..Request::new(prompt, 6)
    }
}

/// The tokens with the bits of their probabilities, and the number of exemplars that applied.
fn answer(ticket: Ticket) -> (Vec<(u32, u32)>, usize) {
    let (mut tokens, mut num_exemplars) = (Vec::new(), 0);
    for event in ticket {
        match event {
            Event::Started(started) => num_exemplars = started.group.unwrap().num_exemplars,
            Event::Token(token) => {
                tokens.push((token.token_id, token.logprob.unwrap().to_bits()));
            }
            Event::Failed(failure) => panic!("{failure}"),
            _ => {}
        }
    }
    (tokens, num_exemplars)
}

fn ask(engine: &Engine, text: &str, key: Option<&str>) -> (Vec<(u32, u32)>, usize) {
    answer(engine.submit(request(engine, text, key)).unwrap())
}

#[test]
fn exemplars_change_their_own_group_and_removing_them_undoes_it() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path(), kind);
        let base = ask(&engine, "chameleon", None);
        assert_eq!(base.1, 0);
        assert_eq!(
            ask(&engine, "chameleon", Some("a")),
            base,
            "a key never seen"
        );

        let first = engine.remember(ADAPTER, "a", exemplars(1, 3)).unwrap();
        assert_eq!(first, [0, 1, 2]);
        let few = ask(&engine, "chameleon", Some("a"));
        assert_eq!(
            few.1, 3,
            "a request waits for what was remembered before it"
        );
        assert_ne!(few.0, base.0);
        assert_eq!(ask(&engine, "chameleon", None), base);
        assert_eq!(ask(&engine, "chameleon", Some("b")), base);

        let more = engine.remember(ADAPTER, "a", exemplars(2, 2)).unwrap();
        wait_until_ready(&engine, "a");
        let all = ask(&engine, "chameleon", Some("a"));
        assert_eq!(all.1, 5);
        assert_ne!(all.0, few.0);
        for id in more {
            assert!(engine.forget(ADAPTER, "a", id).unwrap());
            assert!(!engine.forget(ADAPTER, "a", id).unwrap());
        }
        assert_eq!(
            ask(&engine, "chameleon", Some("a")),
            few,
            "as if never remembered"
        );
        assert!(engine.forget_group(ADAPTER, "a").unwrap());
        assert_eq!(ask(&engine, "chameleon", Some("a")), base);
        assert!(engine.groups(ADAPTER).unwrap().is_empty());
    }
}

fn wait_until_ready(engine: &Engine, key: &str) {
    for _ in 0..1000 {
        if engine.group(ADAPTER, key).unwrap().unwrap().state == GroupState::Ready {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the layers of `{key}` were not computed");
}

#[test]
fn requests_of_many_groups_together_are_answered_as_each_alone() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path(), kind);
        let keys: Vec<String> = (0..6).map(|idx| format!("tenant {idx}")).collect();
        for (idx, key) in keys.iter().enumerate() {
            engine
                .remember(ADAPTER, key, exemplars(idx, 2 + idx))
                .unwrap();
        }
        let asked: Vec<(String, Option<&str>)> = (0..60)
            .map(|idx| {
                let text = "abcdefghijklmnop"[idx % 7..8 + idx % 9].to_owned();
                let key = (idx % 7 != 6).then(|| keys[idx % 7].as_str());
                (text, key)
            })
            .collect();
        let alone: Vec<_> = asked
            .iter()
            .map(|(text, key)| ask(&engine, text, *key))
            .collect();
        let tickets: Vec<Ticket> = asked
            .iter()
            .map(|(text, key)| engine.submit(request(&engine, text, *key)).unwrap())
            .collect();
        for ((ticket, alone), (_, key)) in tickets.into_iter().zip(alone).zip(&asked) {
            let found = answer(ticket);
            assert_eq!(found, alone);
            assert_eq!(found.1 > 0, key.is_some());
        }
    }
}

#[test]
fn exemplars_outlive_the_engine() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let before = {
            let engine = engine(folder.path(), kind);
            engine.remember(ADAPTER, "a", exemplars(4, 5)).unwrap();
            assert!(
                GroupExemplarSource::open(folder.path()).is_err(),
                "one writer at a time"
            );
            let GroupExemplarSource::Snapshot(seen) =
                GroupExemplarSource::read(folder.path()).unwrap()
            else {
                panic!("it was opened for reading");
            };
            assert_eq!(seen.len(), 1, "any number of readers");
            ask(&engine, "chameleon", Some("a"))
        };
        assert_eq!(
            ask(&engine(folder.path(), kind), "chameleon", Some("a")),
            before
        );
    }
}

#[test]
fn what_cannot_use_exemplars_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), "attention");
    let plain = adapter(engine.model(), "lora", Condition::Centroid);
    let other = tempfile::tempdir().unwrap();
    let groups = GroupExemplarSource::open(other.path()).unwrap();
    assert!(matches!(
        engine.load_adapter_with_groups("plain", plain, groups),
        Err(EngineError::NoExemplarUse { .. })
    ));
    let plain = adapter(engine.model(), "lora", Condition::Centroid);
    engine.load_adapter("plain", plain).unwrap();
    assert!(matches!(
        engine.remember("plain", "a", exemplars(0, 1)),
        Err(EngineError::NoGroups { .. })
    ));
    assert!(matches!(
        engine.remember(ADAPTER, "", exemplars(0, 1)),
        Err(EngineError::Exemplars { .. })
    ));
    let long = "k".repeat(300);
    assert!(matches!(
        engine.submit(request(&engine, "abc", Some(&long))),
        Err(EngineError::GroupKey { found: 300 })
    ));
}
