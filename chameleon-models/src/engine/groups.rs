//! Groups by key: the exemplars of each, and the layers computed from them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use chameleon_core::SplitSequence;
use chameleon_hypernet::GroupLayers;

use super::error::EngineError;
use super::isolation::lock;
use crate::adapter::Adapter;
use crate::adapter::exemplar_states::ExemplarStates;
use crate::adapter::exemplar_store::{
    Exemplar, ExemplarStore, ExemplarStoreError, GroupExemplars, NewExemplar, StoreLimits,
};
use crate::data;
use crate::families::load::LoadedModel;

/// The exemplars of an adapter's groups by key.
#[derive(Debug)]
pub enum GroupExemplarSource {
    /// They may be added and removed.
    Store(ExemplarStore),
    /// As they were when they were read.
    Snapshot(BTreeMap<String, Arc<GroupExemplars>>),
}

impl GroupExemplarSource {
    /// The exemplars in the folder of an adapter, for a program that may change them.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or another program may change them.
    pub fn open(adapter_folder: &Path) -> Result<Self, ExemplarStoreError> {
        ExemplarStore::open(adapter_folder, StoreLimits::default()).map(Self::Store)
    }

    /// The exemplars in the folder of an adapter as they are now, for a program that only reads them.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn read(adapter_folder: &Path) -> Result<Self, ExemplarStoreError> {
        ExemplarStore::read(adapter_folder).map(Self::Snapshot)
    }

    fn get(&self, key: &str) -> Option<&Arc<GroupExemplars>> {
        match self {
            Self::Store(store) => store.get(key),
            Self::Snapshot(groups) => groups.get(key),
        }
    }

    fn groups(&self) -> Vec<&Arc<GroupExemplars>> {
        match self {
            Self::Store(store) => store.groups().collect(),
            Self::Snapshot(groups) => groups.values().collect(),
        }
    }

    fn store(&mut self) -> Result<&mut ExemplarStore, EngineError> {
        match self {
            Self::Store(store) => Ok(store),
            Self::Snapshot(_) => Err(EngineError::ReadOnlyGroups),
        }
    }
}

/// The groups by key of one adapter.
#[derive(Debug)]
pub(super) struct KeyedGroups {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: GroupExemplarSource,
    computed: BTreeMap<String, Computed>,
    num_uses: u64,
}

/// What was computed from the exemplars of a group.
#[derive(Debug, Default)]
struct Computed {
    /// The revision of the exemplars it was computed from.
    revision: u64,
    outcome: Option<Outcome>,
    num_requests: u64,
    last_used: u64,
}

#[derive(Debug, Clone)]
enum Outcome {
    Layers(GroupLayers),
    Failed(String),
}

/// What a request of a key is answered by.
#[derive(Debug)]
pub(super) enum KeyedLayers {
    /// The key has no exemplars.
    None,
    /// They are not computed yet, so the request waits.
    Waiting,
    /// The layers, and the number of exemplars behind them.
    Ready(GroupLayers, usize),
    /// They cannot be computed.
    Failed(String),
}

/// A group by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its key, such as a customer.
    pub key: String,
    /// Its exemplars.
    pub num_exemplars: usize,
    /// Bytes of their texts.
    pub num_bytes: usize,
    /// Whether answers follow the newest exemplars.
    pub state: GroupState,
    /// Requests that used its exemplars.
    pub num_requests: u64,
}

/// Whether the answers of a group follow its newest exemplars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// They do.
    Ready,
    /// The factors are being computed; requests use the former ones, or wait if there are none.
    Computing,
    /// The factors could not be computed; requests fail.
    Failed,
}

impl KeyedGroups {
    /// The groups in an adapter's folder.
    pub(super) fn new(store: GroupExemplarSource) -> Self {
        Self {
            state: Mutex::new(State {
                store,
                computed: BTreeMap::new(),
                num_uses: 0,
            }),
        }
    }

    /// The number of keys with exemplars.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).store.groups().len()
    }

    /// Every key with exemplars.
    pub(super) fn keys(&self) -> Vec<String> {
        let state = lock(&self.state);
        let groups = state.store.groups().into_iter();
        groups.map(|group| group.key.clone()).collect()
    }

    /// Adds exemplars; returns their numbers. The layers of before stay in use until new ones are computed.
    pub(super) fn add(
        &self,
        key: &str,
        exemplars: Vec<NewExemplar>,
    ) -> Result<Vec<u64>, EngineError> {
        let mut state = lock(&self.state);
        let added = state.store.store()?.add(key, exemplars)?;
        if added.num_removed > 0 {
            state.forget_layers(key);
        }
        Ok(added.ids)
    }

    /// Removes one exemplar, and everything that was computed from it; returns whether it existed.
    pub(super) fn remove(&self, key: &str, id: u64) -> Result<bool, EngineError> {
        let mut state = lock(&self.state);
        let existed = state.store.store()?.remove(key, id)?;
        if existed {
            state.forget_layers(key);
        }
        Ok(existed)
    }

    /// Removes a group, and everything that was computed from it; returns whether it existed.
    pub(super) fn remove_key(&self, key: &str) -> Result<bool, EngineError> {
        let mut state = lock(&self.state);
        let existed = state.store.store()?.remove_key(key)?;
        state.computed.remove(key);
        Ok(existed)
    }

    /// The exemplars of a key.
    pub(super) fn exemplars(&self, key: &str) -> Option<Arc<GroupExemplars>> {
        lock(&self.state).store.get(key).map(Arc::clone)
    }

    /// What a request of this key is answered by.
    pub(super) fn layers(&self, key: &str) -> KeyedLayers {
        let state = lock(&self.state);
        let Some(exemplars) = state.store.get(key) else {
            return KeyedLayers::None;
        };
        match state
            .computed
            .get(key)
            .and_then(|computed| computed.outcome.clone())
        {
            None => KeyedLayers::Waiting,
            Some(Outcome::Layers(layers)) => KeyedLayers::Ready(layers, exemplars.exemplars.len()),
            Some(Outcome::Failed(message)) => KeyedLayers::Failed(message),
        }
    }

    /// Whether the layers of this key are not computed yet.
    pub(super) fn is_waiting(&self, key: &str) -> bool {
        let state = lock(&self.state);
        let has_outcome = |computed: &Computed| computed.outcome.is_some();
        state.store.get(key).is_some() && !state.computed.get(key).is_some_and(has_outcome)
    }

    /// Counts a request that uses the exemplars of this key.
    pub(super) fn record_use(&self, key: &str) {
        let mut state = lock(&self.state);
        state.num_uses += 1;
        let num_uses = state.num_uses;
        if let Some(computed) = state.computed.get_mut(key) {
            computed.num_requests += 1;
            computed.last_used = num_uses;
        }
    }

    /// The exemplars of a key if its layers are not computed from the newest of them.
    fn wanted(&self, key: &str) -> Option<Arc<GroupExemplars>> {
        let state = lock(&self.state);
        let exemplars = state.store.get(key)?;
        let is_newest = state.computed.get(key).is_some_and(|computed| {
            computed.outcome.is_some() && computed.revision == exemplars.revision
        });
        (!is_newest).then(|| Arc::clone(exemplars))
    }

    /// Keeps what was computed from some exemplars, unless some of them are gone meanwhile. At most `max_groups` groups
    /// have layers in memory; those used least recently are computed again when they are asked for.
    fn keep(&self, computed_from: &GroupExemplars, outcome: Outcome, max_groups: usize) {
        let mut state = lock(&self.state);
        let key = &computed_from.key;
        let Some(now) = state.store.get(key) else {
            return;
        };
        let is_there = |id: u64| now.exemplars.iter().any(|exemplar| exemplar.id == id);
        if !computed_from
            .exemplars
            .iter()
            .all(|exemplar| is_there(exemplar.id))
        {
            return;
        }
        state.num_uses += 1;
        let last_used = state.num_uses;
        let computed = state.computed.entry(key.clone()).or_default();
        computed.revision = computed_from.revision;
        computed.outcome = Some(outcome);
        computed.last_used = last_used;
        state.evict(max_groups);
    }

    /// Requests of a key fail until its exemplars change.
    pub(super) fn fail(&self, key: &str, message: String) {
        let mut state = lock(&self.state);
        if let Some(revision) = state.store.get(key).map(|exemplars| exemplars.revision) {
            let computed = state.computed.entry(key.to_owned()).or_default();
            computed.revision = revision;
            computed.outcome = Some(Outcome::Failed(message));
        }
    }

    /// Every group.
    pub(super) fn infos(&self) -> Vec<GroupInfo> {
        let state = lock(&self.state);
        let groups = state.store.groups().into_iter();
        groups.map(|group| state.info(group)).collect()
    }

    /// One group.
    pub(super) fn info(&self, key: &str) -> Option<GroupInfo> {
        let state = lock(&self.state);
        state.store.get(key).map(|group| state.info(group))
    }
}

impl State {
    fn forget_layers(&mut self, key: &str) {
        if let Some(computed) = self.computed.get_mut(key) {
            computed.outcome = None;
        }
    }

    fn evict(&mut self, max_groups: usize) {
        let in_memory = |computed: &&mut Computed| computed.outcome.is_some();
        let num_in_memory = self.computed.values_mut().filter(in_memory).count();
        if num_in_memory > max_groups {
            let oldest = self
                .computed
                .values_mut()
                .filter(in_memory)
                .min_by_key(|computed| computed.last_used);
            if let Some(oldest) = oldest {
                oldest.outcome = None;
            }
        }
    }

    fn info(&self, group: &GroupExemplars) -> GroupInfo {
        let computed = self.computed.get(&group.key);
        let state = match computed.and_then(|computed| computed.outcome.as_ref()) {
            Some(Outcome::Failed(_)) => GroupState::Failed,
            Some(Outcome::Layers(_))
                if computed.is_some_and(|computed| computed.revision == group.revision) =>
            {
                GroupState::Ready
            }
            _ => GroupState::Computing,
        };
        GroupInfo {
            key: group.key.clone(),
            num_exemplars: group.exemplars.len(),
            num_bytes: group.num_bytes(),
            state,
            num_requests: computed.map_or(0, |computed| computed.num_requests),
        }
    }
}

/// Computes the layers of a group if they are not of its newest exemplars.
pub(super) fn compute_layers(
    loaded: &LoadedModel,
    adapter: &Adapter,
    groups: &KeyedGroups,
    key: &str,
    max_groups: usize,
) {
    let Some(exemplars) = groups.wanted(key) else {
        return;
    };
    let outcome = match layers_of(loaded, adapter, &exemplars) {
        Ok(layers) => Outcome::Layers(layers),
        Err(message) => {
            tracing::warn!(message, "the factors of a group cannot be computed");
            Outcome::Failed(message)
        }
    };
    groups.keep(&exemplars, outcome, max_groups);
}

fn layers_of(
    loaded: &LoadedModel,
    adapter: &Adapter,
    group: &GroupExemplars,
) -> Result<GroupLayers, String> {
    let how = adapter
        .config
        .exemplars
        .ok_or("the adapter uses no exemplars")?;
    let layers = adapter.config.layers.as_ref();
    let first_layer = layers.ok_or("the adapter has no layers")?.first_layer();
    let mut sequences = Vec::with_capacity(group.exemplars.len());
    for exemplar in &group.exemplars {
        sequences.extend(sequence(loaded, adapter.config.recipe.seq_len(), exemplar)?);
    }
    if sequences.is_empty() {
        return Err("no exemplar has a prompt and an answer of at least one token".to_owned());
    }
    let sequences: Vec<&SplitSequence> = sequences.iter().collect();
    let states = ExemplarStates::of(&loaded.model, first_layer, &sequences);
    let layers = adapter.module.group_layers(&loaded.model, &states, how);
    if layers.is_finite() {
        Ok(layers)
    } else {
        Err("the factors are not finite".to_owned())
    }
}

/// An exemplar as training reads a row with a prompt and an answer; `None` if one of them has no token.
fn sequence(
    loaded: &LoadedModel,
    seq_len: usize,
    exemplar: &Exemplar,
) -> Result<Option<SplitSequence>, String> {
    let tokenizer = &loaded.tokenizer;
    let end = tokenizer.special_token_ids().eos.first().copied();
    data::exchange_sequence(&exemplar.prompt, &exemplar.answer, end, seq_len, &|text| {
        Ok(tokenizer.encode_with_ends(text)?)
    })
    .map_err(|error| error.to_string())
}
