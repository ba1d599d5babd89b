//! The text of one answer while it grows: whole characters only, and no part of a stop text.

use crate::error::ModelError;
use crate::files::tokenizer::{TextStream, Tokenizer};

/// An answer under construction.
#[derive(Debug)]
pub(super) struct Answer {
    stops: Vec<String>,
    stream: TextStream,
    /// Text that was not returned yet.
    held: String,
    is_stopped: bool,
}

impl Answer {
    /// An empty answer that ends where one of `stops` begins.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            stream: TextStream::default(),
            held: String::new(),
            is_stopped: false,
        }
    }

    /// Adds a token; returns the text that may be shown now.
    pub(super) fn push(
        &mut self,
        token_id: u32,
        tokenizer: &Tokenizer,
    ) -> Result<String, ModelError> {
        let fresh = self.stream.push(token_id, tokenizer)?;
        Ok(self.add(&fresh))
    }

    /// Ends the answer; returns the text that was held back.
    pub(super) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        if self.is_stopped {
            return Ok(String::new());
        }
        let rest = self.stream.finish(tokenizer)?;
        let mut text = self.add(&rest);
        text.push_str(&std::mem::take(&mut self.held));
        Ok(text)
    }

    /// Whether the text reached a stop text.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    fn add(&mut self, fresh: &str) -> String {
        self.held.push_str(fresh);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop));
        if let Some(start) = found.min() {
            self.held.truncate(start);
            self.is_stopped = true;
            return std::mem::take(&mut self.held);
        }
        let kept = self.held.split_off(self.held.len() - self.possible_stop());
        std::mem::replace(&mut self.held, kept)
    }

    /// Bytes at the end that may turn out to be the start of a stop text.
    fn possible_stop(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| stop.char_indices().map(move |(len, _)| &stop[..len]))
            .filter(|start| self.held.ends_with(start))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stops: &[&str], pieces: &[&str]) -> Vec<String> {
        let mut answer = Answer::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut shown: Vec<String> = pieces.iter().map(|piece| answer.add(piece)).collect();
        shown.push(answer.held);
        shown
    }

    #[test]
    fn nothing_of_a_stop_text_is_shown() {
        assert_eq!(
            shown(&["END", "\n\n"], &["one E", "N", "D two"]),
            ["one ", "", "", ""]
        );
    }

    #[test]
    fn what_only_looked_like_a_stop_is_shown_later() {
        assert_eq!(shown(&["END"], &["EN", "T", "E"]), ["", "ENT", "", "E"]);
    }

    #[test]
    fn the_earliest_stop_counts() {
        assert_eq!(shown(&["c", "b"], &["abc"]), ["a", ""]);
    }
}
