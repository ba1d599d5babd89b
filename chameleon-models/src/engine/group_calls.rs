//! What a caller may do with the groups by key of an adapter.

use std::sync::Arc;

use super::adapters::{AdapterInfo, LoadedAdapter};
use super::error::EngineError;
use super::groups::{GroupExemplarSource, GroupInfo, KeyedGroups};
use super::handle::Engine;
use super::isolation::lock;
use crate::adapter::Adapter;
use crate::adapter::exemplar_store::{GroupExemplars, NewExemplar};

impl Engine {
    /// Like [`load_adapter`](Self::load_adapter), with the exemplars of its groups by key. Their layers are computed
    /// while the engine answers; a request of a group whose layers are missing waits for them.
    ///
    /// # Errors
    ///
    /// As [`load_adapter`](Self::load_adapter), and when the adapter uses no exemplars.
    pub fn load_adapter_with_groups(
        &self,
        name: &str,
        adapter: Adapter,
        groups: GroupExemplarSource,
    ) -> Result<AdapterInfo, EngineError> {
        if adapter.config.exemplars.is_none() {
            return Err(EngineError::NoExemplarUse {
                adapter: name.to_owned(),
            });
        }
        let info = self.add_adapter(name, adapter, Some(KeyedGroups::new(groups)))?;
        let adapter = self.adapter(name)?;
        let keys = adapter
            .groups
            .as_ref()
            .map_or_else(Vec::new, KeyedGroups::keys);
        self.shared.group_jobs.add(&adapter, keys.into_iter());
        Ok(info)
    }

    /// Adds answered requests to a group; returns their numbers. They are on disk when this returns, and their effect
    /// follows as soon as the layers are computed.
    ///
    /// # Errors
    ///
    /// When no adapter has this name, it uses no exemplars, or they cannot be written.
    pub fn remember(
        &self,
        adapter: &str,
        key: &str,
        exemplars: Vec<NewExemplar>,
    ) -> Result<Vec<u64>, EngineError> {
        let adapter = self.adapter(adapter)?;
        let ids = groups(&adapter)?.add(key, exemplars)?;
        self.shared.group_jobs.add_first(&adapter, key);
        Ok(ids)
    }

    /// Removes an exemplar, and its effect on all requests that start from now on; returns whether it existed.
    ///
    /// # Errors
    ///
    /// As [`remember`](Self::remember).
    pub fn forget(&self, adapter: &str, key: &str, id: u64) -> Result<bool, EngineError> {
        let adapter = self.adapter(adapter)?;
        let existed = groups(&adapter)?.remove(key, id)?;
        if existed {
            self.shared.group_jobs.add_first(&adapter, key);
        }
        Ok(existed)
    }

    /// Removes a group with all its exemplars; returns whether it existed.
    ///
    /// # Errors
    ///
    /// As [`remember`](Self::remember).
    pub fn forget_group(&self, adapter: &str, key: &str) -> Result<bool, EngineError> {
        let adapter = self.adapter(adapter)?;
        let existed = groups(&adapter)?.remove_key(key)?;
        // A request that waits for it is answered as one without exemplars. Under the lock of the queue, so that a
        // worker that has just found nothing ready notices it.
        drop(lock(&self.shared.queue));
        self.shared.changed.notify_all();
        Ok(existed)
    }

    /// The exemplars of a group; `None` if it has none.
    ///
    /// # Errors
    ///
    /// When no adapter has this name, or it uses no exemplars.
    pub fn exemplars(
        &self,
        adapter: &str,
        key: &str,
    ) -> Result<Option<Arc<GroupExemplars>>, EngineError> {
        let adapter = self.adapter(adapter)?;
        Ok(groups(&adapter)?.exemplars(key))
    }

    /// The groups by key of an adapter.
    ///
    /// # Errors
    ///
    /// When no adapter has this name.
    pub fn groups(&self, adapter: &str) -> Result<Vec<GroupInfo>, EngineError> {
        let adapter = self.adapter(adapter)?;
        Ok(adapter
            .groups
            .as_ref()
            .map_or_else(Vec::new, KeyedGroups::infos))
    }

    /// One group by key of an adapter; `None` if it has no exemplars.
    ///
    /// # Errors
    ///
    /// When no adapter has this name, or it uses no exemplars.
    pub fn group(&self, adapter: &str, key: &str) -> Result<Option<GroupInfo>, EngineError> {
        let adapter = self.adapter(adapter)?;
        Ok(groups(&adapter)?.info(key))
    }
}

fn groups(adapter: &LoadedAdapter) -> Result<&KeyedGroups, EngineError> {
    adapter
        .groups
        .as_ref()
        .ok_or_else(|| EngineError::NoGroups {
            adapter: adapter.name.clone(),
        })
}
