//! Peak memory of this process, on systems that report it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

/// The peak since the start, or since [`forget_peak`].
pub(crate) fn peak_bytes() -> Option<u64> {
    let mut status = String::new();
    File::open("/proc/self/status")
        .and_then(|mut file| file.read_to_string(&mut status))
        .ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Resets the peak. On a system that cannot, the old peak stays, which is never too low.
pub(crate) fn forget_peak() {
    let file = OpenOptions::new().write(true).open("/proc/self/clear_refs");
    if let Ok(mut file) = file {
        // 5 resets the peak and nothing else; a refusal leaves the old peak.
        let _ = file.write_all(b"5");
    }
}
