//! Exemplars of groups by key (a tenant, a customer), kept in the folder of an adapter.
//!
//! ```text
//! groups/lock                 locked by the one process that writes
//! groups/DIGITS.json          the exemplars of one key; DIGITS are the first 32 of the SHA-256 of the key
//! ```
//!
//! The exemplars of a key are bounded, so every change replaces the whole file of the key atomically; a change that was
//! reported as done survives a killed program and a power failure. Keys do not share files, and a removed key leaves no
//! file with its texts (blocks of the disk are not overwritten). All exemplars are in memory while the store is open.
//! How exemplars change a model is not defined here.

mod error;
mod exemplars;
mod folder;
mod key_file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::error::{ExemplarStoreError, ImpossibleExemplars, InvalidKey};
pub use self::exemplars::{Exemplar, GroupExemplars, NewExemplar};
use self::folder::FolderLock;
use self::key_file::KeyContents;

/// The folder of the exemplars in the folder of an adapter.
const FOLDER: &str = "groups";

/// Bytes of a key at most, unless a store is opened with another limit.
pub const MAX_KEY_BYTES: usize = 256;

/// How much is stored. Exemplars beyond the limits that were stored under other limits are kept until their key gets
/// new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Keys.
    pub max_keys: usize,
    /// Exemplars of a key.
    pub max_exemplars: usize,
    /// Bytes of the texts of a key.
    pub max_bytes: usize,
    /// Bytes of a key itself.
    pub max_key_bytes: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            max_keys: 100_000,
            max_exemplars: 256,
            max_bytes: 256 << 10,
            max_key_bytes: MAX_KEY_BYTES,
        }
    }
}

/// The result of an addition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Added {
    /// Ids of the new exemplars, in their order.
    pub ids: Vec<u64>,
    /// Number of exemplars of the key that were removed because of the limits; the first new ones may be among them.
    pub num_removed: usize,
}

/// The exemplars of all keys of an adapter, and the right to change them.
#[derive(Debug)]
pub struct ExemplarStore {
    folder: PathBuf,
    limits: StoreLimits,
    /// `None` until the folder exists.
    lock: Option<FolderLock>,
    groups: BTreeMap<String, Group>,
    /// The first id of a new key; larger than all ids of keys that were removed.
    first_id: u64,
}

#[derive(Debug)]
struct Group {
    exemplars: Arc<GroupExemplars>,
    num_bytes: usize,
    next_id: u64,
}

impl ExemplarStore {
    /// Opens the exemplars of the adapter in `adapter_folder` for reading and writing.
    ///
    /// Without any exemplars nothing is written; the first addition creates their folder. Files of interrupted writes
    /// are deleted.
    ///
    /// # Errors
    ///
    /// When another process has opened the same exemplars for writing, and when a file is unreadable, damaged or of
    /// another version.
    pub fn open(adapter_folder: &Path, limits: StoreLimits) -> Result<Self, ExemplarStoreError> {
        let mut store = Self {
            folder: adapter_folder.join(FOLDER),
            limits,
            lock: None,
            groups: BTreeMap::new(),
            first_id: 0,
        };
        store.lock_existing()?;
        Ok(store)
    }

    /// Reads the exemplars of the adapter in `adapter_folder` by key, as they are at this moment.
    ///
    /// Nothing is locked or deleted: another process may be changing them.
    ///
    /// # Errors
    ///
    /// When a file is unreadable, damaged or of another version.
    pub fn read(
        adapter_folder: &Path,
    ) -> Result<BTreeMap<String, Arc<GroupExemplars>>, ExemplarStoreError> {
        let groups = read_groups(&adapter_folder.join(FOLDER))?;
        let groups = groups
            .into_iter()
            .map(|(key, group)| (key, group.exemplars));
        Ok(groups.collect())
    }

    /// Appends exemplars to those of a key. If there are too many, the oldest of the key are removed, which may include
    /// the first of the new ones.
    ///
    /// # Errors
    ///
    /// When the key or an exemplar is invalid, when there are too many keys, and when the file cannot be written. The
    /// store is then unchanged. (If only the sync of the folder fails, the file may have the new exemplars.)
    pub fn add(&mut self, key: &str, new: Vec<NewExemplar>) -> Result<Added, ExemplarStoreError> {
        self.check_key(key)?;
        for (exemplar_idx, new) in new.iter().enumerate() {
            self.check_new(exemplar_idx, new)?;
        }
        if new.is_empty() {
            return Ok(Added::default());
        }
        self.lock_new()?;
        let (first_id, mut exemplars) = match self.groups.get(key) {
            Some(group) => (group.next_id, group.exemplars.exemplars.clone()),
            None if self.groups.len() >= self.limits.max_keys => {
                return Err(ExemplarStoreError::TooManyKeys {
                    max: self.limits.max_keys,
                });
            }
            None => (self.first_id, Vec::new()),
        };
        let next_id = first_id.saturating_add(new.len() as u64);
        if next_id > key_file::MAX_NEXT_ID {
            return Err(ExemplarStoreError::IdsExhausted);
        }
        let ids: Vec<u64> = (first_id..next_id).collect();
        exemplars.extend(new.into_iter().zip(&ids).map(|(new, &id)| new.with_id(id)));
        let num_removed = self.num_excess(&exemplars);
        exemplars.drain(..num_removed);
        self.replace(key, next_id, exemplars)?;
        Ok(Added { ids, num_removed })
    }

    /// Removes one exemplar; returns whether there was one. With its last exemplar a key is removed.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or removed. The store is then unchanged.
    pub fn remove(&mut self, key: &str, id: u64) -> Result<bool, ExemplarStoreError> {
        self.lock_existing()?;
        let Some(group) = self.groups.get(key) else {
            return Ok(false);
        };
        let mut exemplars = group.exemplars.exemplars.clone();
        exemplars.retain(|exemplar| exemplar.id != id);
        if exemplars.len() == group.exemplars.exemplars.len() {
            return Ok(false);
        }
        self.replace(key, group.next_id, exemplars)?;
        Ok(true)
    }

    /// Removes a key with all its exemplars; returns whether there were any.
    ///
    /// Their ids are not used again for this key as long as the store is open.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed. The store is then unchanged.
    pub fn remove_key(&mut self, key: &str) -> Result<bool, ExemplarStoreError> {
        self.lock_existing()?;
        if self.lock.is_none() {
            return Ok(false);
        }
        match self.groups.get(key) {
            Some(group) => {
                self.remove_group(key, group.next_id)?;
                Ok(true)
            }
            // An addition of which only the sync failed has left a file.
            None => folder::remove_file(&self.path(key)),
        }
    }

    /// The exemplars of a key; `None` if it has none.
    pub fn get(&self, key: &str) -> Option<&Arc<GroupExemplars>> {
        self.groups.get(key).map(|group| &group.exemplars)
    }

    /// The exemplars of all keys, in the order of the keys.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<GroupExemplars>> {
        self.groups.values().map(|group| &group.exemplars)
    }

    /// Number of keys that have exemplars.
    pub fn num_keys(&self) -> usize {
        self.groups.len()
    }

    /// Bytes of the texts of all keys.
    pub fn num_bytes(&self) -> usize {
        self.groups.values().map(|group| group.num_bytes).sum()
    }

    /// The limits that the store was opened with.
    pub fn limits(&self) -> &StoreLimits {
        &self.limits
    }
}

impl ExemplarStore {
    fn check_key(&self, key: &str) -> Result<(), InvalidKey> {
        if key.len() > self.limits.max_key_bytes {
            return Err(InvalidKey::TooLong {
                found: key.len(),
                max: self.limits.max_key_bytes,
            });
        }
        key_file::check_key(key)
    }

    fn check_new(&self, exemplar_idx: usize, new: &NewExemplar) -> Result<(), ExemplarStoreError> {
        if new.is_blank() {
            return Err(ExemplarStoreError::Blank { exemplar_idx });
        }
        if new.num_bytes() > self.limits.max_bytes {
            return Err(ExemplarStoreError::ExemplarTooLarge {
                exemplar_idx,
                found: new.num_bytes(),
                max: self.limits.max_bytes,
            });
        }
        Ok(())
    }

    /// How many of the oldest exemplars exceed the limits of a key.
    fn num_excess(&self, exemplars: &[Exemplar]) -> usize {
        let mut num_bytes = exemplars::num_bytes(exemplars);
        let mut num_excess = 0;
        for exemplar in exemplars {
            let num_kept = exemplars.len() - num_excess;
            if num_kept <= self.limits.max_exemplars && num_bytes <= self.limits.max_bytes {
                break;
            }
            num_bytes -= exemplar.num_bytes();
            num_excess += 1;
        }
        num_excess
    }

    /// Replaces the exemplars of a key in its file, then in memory.
    fn replace(
        &mut self,
        key: &str,
        next_id: u64,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), ExemplarStoreError> {
        if exemplars.is_empty() {
            return self.remove_group(key, next_id);
        }
        let contents = KeyContents {
            key: key.to_owned(),
            next_id,
            exemplars,
        };
        key_file::write(&self.folder, &contents)?;
        self.groups.insert(key.to_owned(), Group::new(contents));
        Ok(())
    }

    /// Removes the file of a key, then its exemplars in memory.
    fn remove_group(&mut self, key: &str, next_id: u64) -> Result<(), ExemplarStoreError> {
        if !folder::remove_file(&self.path(key))? {
            // It was removed before, when the sync may have failed.
            folder::sync(&self.folder)?;
        }
        self.groups.remove(key);
        self.first_id = self.first_id.max(next_id);
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key_file::file_name(key))
    }

    /// Creates the folder and locks it.
    fn lock_new(&mut self) -> Result<(), ExemplarStoreError> {
        if self.lock.is_none() {
            folder::create(&self.folder)?;
            self.lock_existing()?;
        }
        Ok(())
    }

    /// Locks the folder if it exists, and reads what another process may have written before.
    fn lock_existing(&mut self) -> Result<(), ExemplarStoreError> {
        if self.lock.is_some() || !folder::exists(&self.folder)? {
            return Ok(());
        }
        let lock = folder::lock(&self.folder)?;
        folder::remove_files(&self.folder, key_file::is_leftover)?;
        self.groups = read_groups(&self.folder)?;
        self.lock = Some(lock);
        Ok(())
    }
}

impl Group {
    fn new(contents: KeyContents) -> Self {
        /// The revision of the next group.
        static REVISION: AtomicU64 = AtomicU64::new(0);
        let exemplars = GroupExemplars {
            key: contents.key,
            revision: REVISION.fetch_add(1, Ordering::Relaxed),
            exemplars: contents.exemplars,
        };
        Self {
            num_bytes: exemplars.num_bytes(),
            exemplars: Arc::new(exemplars),
            next_id: contents.next_id,
        }
    }
}

fn read_groups(folder: &Path) -> Result<BTreeMap<String, Group>, ExemplarStoreError> {
    let mut groups = BTreeMap::new();
    for path in folder::files(folder, key_file::is_key_file)? {
        // A reader does not lock the folder, so that a listed file may have been removed.
        if let Some(contents) = key_file::read(&path)? {
            groups.insert(contents.key.clone(), Group::new(contents));
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests;
