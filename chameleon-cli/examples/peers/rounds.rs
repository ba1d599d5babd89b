//! The conversation with `cargo xtask bench peers`.

use std::error::Error;
use std::io::BufRead as _;
use std::time::Instant;

use serde_json::{Value, json};

/// Says what was set up, then times one round for every line of standard input.
///
/// A round returns what it computed, by which both sides are compared.
pub(crate) fn serve(
    setup: &Value,
    mut round: impl FnMut() -> Result<f64, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    println!("{}", json!({ "ready": setup }));
    for line in std::io::stdin().lock().lines() {
        line?;
        let clock = Instant::now();
        let value = round()?;
        let seconds = clock.elapsed().as_secs_f64();
        println!("{}", json!({ "seconds": seconds, "value": value }));
    }
    Ok(())
}
