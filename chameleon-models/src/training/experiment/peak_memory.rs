//! Peak memory of this process, on systems that report it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

/// Peak memory since the start, or since the last [`forget`].
pub fn bytes() -> Option<u64> {
    let mut status = String::new();
    File::open("/proc/self/status")
        .and_then(|mut file| file.read_to_string(&mut status))
        .ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Resets the peak. On systems that cannot reset it the old peak stays, which is never too low.
pub fn forget() {
    let file = OpenOptions::new().write(true).open("/proc/self/clear_refs");
    if let Ok(mut file) = file {
        // 5 resets only the peak; on an error the old peak stays.
        let _ = file.write_all(b"5");
    }
}
