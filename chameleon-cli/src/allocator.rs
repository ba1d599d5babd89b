//! The allocator of the program, and how long it keeps memory that was freed.
//!
//! Tensors of a step are as large as those of the step before. If their memory goes back to the system meanwhile, the
//! system clears every page before it returns it again: a fifth of a training step.
#![expect(
    unsafe_code,
    reason = "the allocator's options are set through its C interface"
)]

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory stays with the program, in milliseconds: longer than a step, shorter than a pause.
const KEPT_MILLISECONDS: c_long = 10_000;

/// `mi_option_purge_delay` of mimalloc 2 and 3. The crate does not export it; a test below notices another numbering.
const PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Keeps freed memory for the next step. To be called once, before other threads exist.
pub(crate) fn keep_freed_memory() {
    // The variable is mimalloc's own way to set the option.
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the option exists, takes a number, and no other thread sets options.
        unsafe { mi_option_set(PURGE_DELAY, KEPT_MILLISECONDS) }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    fn purge_delay() -> c_long {
        // SAFETY: the option exists, and reading it changes nothing.
        unsafe { mi_option_get(PURGE_DELAY) }
    }

    #[test]
    fn the_option_is_the_one_that_mimalloc_names_purge_delay() {
        const VARIABLE: &str = "MIMALLOC_PURGE_DELAY";
        const TEST: &str =
            "allocator::tests::the_option_is_the_one_that_mimalloc_names_purge_delay";
        keep_freed_memory();
        if let Ok(value) = env::var(VARIABLE) {
            // mimalloc has read the variable when this process started.
            assert_eq!(purge_delay(), value.parse::<c_long>().unwrap());
            return;
        }
        assert_eq!(purge_delay(), KEPT_MILLISECONDS);
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", TEST])
            .env(VARIABLE, "4321")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{text}");
    }
}
