//! `chameleon batch`: answers all prompts of a file, each once, even if the run is interrupted.

mod journal;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use chameleon_models::LoadedModel;
use chameleon_models::adapter::{Adapter, ExemplarStore, GroupExemplars};
use chameleon_models::data::{Document, Place};
use chameleon_models::engine::{
    Cancellation, ConditionChoice, Engine, EngineError, Event, Request, RequestFailure,
};
use chameleon_models::files::fingerprint::Fingerprint;
use serde::Serialize;

use self::journal::Journal;
use crate::{
    commands::{Context, adapter, decoding},
    errors::{CliError, ExitStatus},
    output::{Page, Results},
    resolve::BatchConfig,
};

pub(crate) fn run(config: &BatchConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let loaded = context.load_model(&config.model)?;
    let mut documents = config.data.documents(&loaded, context)?;
    if let Some(num_rows) = config.data.max_examples {
        documents.truncate(num_rows);
    }
    let adapter = config
        .adapter
        .as_deref()
        .map(|folder| adapter::load(folder, &loaded, config.memory))
        .transpose()?;
    let groups = config.adapter.as_deref().filter(|_| config.has_groups);
    let groups = groups.map(ExemplarStore::read).transpose();
    let groups = groups.map_err(EngineError::from)?.unwrap_or_default();
    let fingerprint = fingerprint(&documents, &loaded, adapter.as_ref(), config, context);
    let fingerprint = with_groups(fingerprint, &documents, &groups);
    let journal = Journal::open(&config.out, &fingerprint.to_string(), documents.len())?;
    if journal.num_done() > 0 {
        context.output.note(format_args!(
            "continuing: {} of {} prompts are answered already",
            journal.num_done(),
            documents.len()
        ));
    }
    let engine = decoding::start(loaded, &config.decoding)?;
    if let (Some(adapter), Some(folder)) = (adapter, &config.adapter) {
        decoding::load(&engine, adapter, folder)?;
    }
    let prompts: Vec<&str> = documents.iter().map(Document::prompt).collect();
    let mut requests = decoding::requests(&engine, &prompts, &config.decoding, "batch", context)?;
    if config.has_groups {
        for (request, document) in requests.iter_mut().zip(&documents) {
            request.group.clone_from(&document.label);
        }
    }
    let mut summary = Summary {
        prompts: documents.len(),
        answered_before: journal.num_done(),
        failed: 0,
        tokens: 0,
        out: config.out.display().to_string(),
    };
    let run = BatchRun {
        documents: &documents,
        engine: &engine,
        has_groups: config.has_groups,
        max_running: 2 * config.decoding.batch_size,
        context,
    };
    let Some(journal) = run.answer(requests, journal, &mut summary)? else {
        context
            .output
            .note("interrupted; the same command continues from here");
        return Ok(ExitStatus::Interrupted);
    };
    summary.failed = journal.finish()?;
    context.output.results(&summary)?;
    if summary.failed > 0 {
        context.output.warn(format_args!(
            "{} prompts could not be answered; the field `error` of their rows gives the reason",
            summary.failed
        ));
        return Ok(ExitStatus::CheckFailed);
    }
    Ok(ExitStatus::Done)
}

/// The fingerprint of everything that the answers depend on: a journal with another one is not resumed.
fn fingerprint(
    documents: &[Document],
    loaded: &LoadedModel,
    adapter: Option<&Adapter>,
    config: &BatchConfig,
    context: &Context,
) -> Fingerprint {
    let decoding = &config.decoding;
    let flags = format!(
        "{:?} {:?} {} {:?} {:?}",
        decoding.template,
        decoding.sampling,
        decoding.max_new_tokens,
        decoding.stop,
        context.settings.seed
    );
    let adapter = adapter.map(|adapter| adapter.fingerprint().to_string());
    let mut builder = Fingerprint::builder()
        .part("version", env!("CARGO_PKG_VERSION").as_bytes())
        .part("model", loaded.states_fingerprint().as_bytes())
        .part("adapter", adapter.unwrap_or_default().as_bytes())
        .part("flags", flags.as_bytes());
    for document in documents {
        builder = builder.part("prompt", document.prompt().as_bytes());
    }
    builder.finish()
}

/// The same with the groups of the prompts and the exemplars of these, if there are any.
fn with_groups(
    fingerprint: Fingerprint,
    documents: &[Document],
    groups: &BTreeMap<String, Arc<GroupExemplars>>,
) -> Fingerprint {
    if groups.is_empty() {
        return fingerprint;
    }
    let mut builder = Fingerprint::builder().part("run", fingerprint.to_string().as_bytes());
    let mut keys: Vec<&String> = Vec::new();
    for document in documents {
        let key = document.label.as_ref();
        builder = builder.part("group", key.map_or(&[], |key| key.as_bytes()));
        keys.extend(key);
    }
    keys.sort_unstable();
    keys.dedup();
    for exemplar in keys
        .into_iter()
        .filter_map(|key| groups.get(key))
        .flat_map(|group| &group.exemplars)
    {
        builder = builder
            .part("exemplar", exemplar.prompt.as_bytes())
            .part("answer", exemplar.answer.as_bytes());
    }
    builder.finish()
}

/// One row of the answers.
#[derive(Debug, Serialize)]
struct AnswerRow<'a> {
    #[serde(flatten)]
    place: PlaceInFile,
    prompt: &'a str,
    /// The key of its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The position of a prompt in its file, counted from 1.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum PlaceInFile {
    Line(usize),
    Row(usize),
}

impl From<Place> for PlaceInFile {
    fn from(place: Place) -> Self {
        match place {
            Place::Line(line) => Self::Line(line),
            Place::Row(row) => Self::Row(row),
        }
    }
}

/// The result of a prompt.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Answer {
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<usize>,
        text: String,
        num_tokens: usize,
        finish: &'static str,
    },
    Failure {
        error: String,
    },
}

/// The result of a run.
#[derive(Debug, Serialize)]
struct Summary {
    prompts: usize,
    answered_before: usize,
    failed: usize,
    tokens: usize,
    out: String,
}

impl Results for Summary {
    fn write_text(&self, page: &mut Page) {
        page.line(format_args!(
            "{} prompts, {} tokens written: {}",
            self.prompts, self.tokens, self.out
        ));
    }
}

/// An answer in progress.
#[derive(Debug, Default)]
struct Unfinished {
    /// Dropped with the answer, which cancels the request if it still runs.
    cancellation: Option<Cancellation>,
    group: Option<usize>,
    text: String,
}

/// The fixed state of a run.
struct BatchRun<'a> {
    documents: &'a [Document],
    engine: &'a Engine,
    has_groups: bool,
    max_running: usize,
    context: &'a Context,
}

impl BatchRun<'_> {
    /// Answers the rows that are missing from the journal; returns the complete journal, or `None` if the user
    /// interrupts.
    fn answer(
        &self,
        requests: Vec<Request>,
        mut journal: Journal,
        summary: &mut Summary,
    ) -> Result<Option<Journal>, CliError> {
        let bar = self
            .context
            .output
            .progress("answering", self.documents.len() as u64);
        bar.set_position(journal.num_done() as u64);
        bar.reset_eta();
        let start = Instant::now();
        let mut waiting = in_groups(requests, &journal).into_iter();
        let mut running: BTreeMap<usize, Unfinished> = BTreeMap::new();
        let (sender, events) = mpsc::channel();
        while !self.context.interrupt.is_asked() {
            while running.len() < self.max_running
                && let Some((row, request)) = waiting.next()
            {
                match self.submit(row, request, &sender) {
                    Ok(cancellation) => {
                        running.entry(row).or_default().cancellation = Some(cancellation);
                    }
                    Err(error) => self.write(&mut journal, row, Outcome::Failure { error })?,
                }
            }
            if running.is_empty() {
                bar.finish_and_clear();
                return Ok(Some(journal));
            }
            let (row, event) = match events.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("this function holds a sender")
                }
            };
            let Some(unfinished) = running.get_mut(&row) else {
                continue;
            };
            if let Some(outcome) = unfinished.take(event, summary) {
                running.remove(&row);
                self.write(&mut journal, row, outcome)?;
                let rate = summary.tokens as f64 / start.elapsed().as_secs_f64();
                bar.set_message(format!("{rate:.0} tokens/s,"));
                bar.set_position(journal.num_done() as u64);
            }
        }
        bar.finish_and_clear();
        journal.sync()?;
        Ok(None)
    }

    fn submit(
        &self,
        row: usize,
        request: Request,
        sender: &Sender<(usize, Event)>,
    ) -> Result<Cancellation, String> {
        let sender = sender.clone();
        self.engine
            .submit_with(request, move |event| {
                // Sending fails after the run was stopped, when no event is needed any more.
                let _ = sender.send((row, event));
            })
            .map_err(|refusal| refusal.to_string())
    }

    fn write(&self, journal: &mut Journal, row: usize, outcome: Outcome) -> Result<(), CliError> {
        let document = &self.documents[row];
        let answer = AnswerRow {
            place: document.origin.place.into(),
            prompt: document.prompt(),
            key: document.label.as_deref().filter(|_| self.has_groups),
            outcome,
        };
        journal.write(row, &answer)
    }
}

impl Unfinished {
    /// Applies an event; returns the outcome if the answer is finished.
    fn take(&mut self, event: Event, summary: &mut Summary) -> Option<Outcome> {
        match event {
            Event::Started(started) => {
                self.group = started.group.map(|group| group.cluster_idx);
                None
            }
            Event::Token(token) => {
                self.text.push_str(&token.text);
                None
            }
            Event::Finished {
                reason,
                text,
                usage,
            } => {
                summary.tokens += usage.num_new_tokens;
                self.text.push_str(&text);
                Some(Outcome::Answer {
                    group: self.group,
                    text: std::mem::take(&mut self.text),
                    num_tokens: usage.num_new_tokens,
                    finish: decoding::word(reason),
                })
            }
            Event::Failed(failure) => Some(failed(&failure)),
            _ => None,
        }
    }
}

fn failed(failure: &RequestFailure) -> Outcome {
    Outcome::Failure {
        error: failure.to_string(),
    }
}

/// The remaining requests sorted by group, so that few groups are decoded at a time.
fn in_groups(requests: Vec<Request>, journal: &Journal) -> Vec<(usize, Request)> {
    let mut left: Vec<(usize, Request)> = requests
        .into_iter()
        .enumerate()
        .filter(|(row, _)| !journal.has(*row))
        .collect();
    left.sort_by_key(|(_, request)| {
        let cluster_idx = match &request.condition {
            ConditionChoice::Given(given) => given.cluster_idx,
            _ => 0,
        };
        (request.group.clone(), cluster_idx)
    });
    left
}
