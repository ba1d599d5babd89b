//! The allocator of the program, and how long it keeps memory that was freed.
//!
//! Tensors of a step are as large as those of the step before. If their memory goes back to the system meanwhile, the
//! system clears every page before it hands it out again: a fifth of a training step.
#![expect(
    unsafe_code,
    reason = "the allocator's options are set through its C interface"
)]

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory stays with the program, in milliseconds: longer than a step, shorter than a pause.
const KEPT_MILLISECONDS: c_long = 10_000;

/// `mi_option_purge_delay` of mimalloc 2 and 3.
const PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Keeps freed memory for the next step. To be called once, before other threads exist.
pub(crate) fn keep_freed_memory() {
    // Whoever sets the variable knows better.
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the option exists, takes a number, and no other thread sets options.
        unsafe { mi_option_set(PURGE_DELAY, KEPT_MILLISECONDS) }
    }
}
