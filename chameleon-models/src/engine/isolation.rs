//! Isolation of failures: locks that ignore poisoning, and the message of a panic.

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The value behind a lock. The values behind locks are valid after every statement, so a panic cannot leave them
/// inconsistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message of a panic.
pub(super) fn message_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}
