//! The text of one answer while it grows: whole characters only, and nothing of a stop text.

use chameleon_models::{TextStream, Tokenizer};

use crate::errors::CliError;

/// An answer under construction.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    stops: &'a [String],
    stream: TextStream,
    text: String,
    /// Bytes of `text` that were given out.
    num_given: usize,
    is_stopped: bool,
}

impl<'a> Answer<'a> {
    /// An empty answer that ends where one of `stops` begins.
    pub(crate) fn new(stops: &'a [String]) -> Self {
        Self {
            stops,
            stream: TextStream::default(),
            text: String::new(),
            num_given: 0,
            is_stopped: false,
        }
    }

    /// Adds a token; answers with the text that may be shown now.
    pub(crate) fn push(
        &mut self,
        token_id: u32,
        tokenizer: &Tokenizer,
    ) -> Result<String, CliError> {
        let fresh = self.stream.push(token_id, tokenizer)?;
        self.add(&fresh);
        let end = if self.is_stopped {
            self.text.len()
        } else {
            self.text.len() - self.held_back()
        };
        Ok(self.give(end))
    }

    /// Ends the answer; answers with the text that was held back.
    pub(crate) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, CliError> {
        if !self.is_stopped {
            let rest = self.stream.finish(tokenizer)?;
            self.add(&rest);
        }
        Ok(self.give(self.text.len()))
    }

    /// Whether a stop text was met.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The whole answer.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn add(&mut self, fresh: &str) {
        self.text.push_str(fresh);
        if let Some(start) = self
            .stops
            .iter()
            .filter_map(|stop| self.text.find(stop))
            .min()
        {
            self.text.truncate(start);
            self.is_stopped = true;
        }
    }

    fn give(&mut self, end: usize) -> String {
        let start = self.num_given.min(end);
        self.num_given = end;
        self.text[start..end].to_owned()
    }

    /// Bytes at the end that may turn out to be the start of a stop text.
    fn held_back(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| stop.char_indices().map(move |(len, _)| &stop[..len]))
            .filter(|start| self.text.ends_with(start))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut answer = Answer::new(&stops);
        let mut shown = Vec::new();
        for piece in pieces {
            answer.add(piece);
            let held_back = if answer.is_stopped {
                0
            } else {
                answer.held_back()
            };
            shown.push(answer.give(answer.text.len() - held_back));
        }
        shown.push(answer.give(answer.text.len()));
        (shown, answer.into_text())
    }

    #[test]
    fn nothing_of_a_stop_text_is_shown() {
        let (pieces, text) = shown(&["END", "\n\n"], &["one E", "N", "D two"]);
        assert_eq!(pieces, ["one ", "", "", ""]);
        assert_eq!(text, "one ");
    }

    #[test]
    fn what_only_looked_like_a_stop_is_shown_later() {
        let (pieces, text) = shown(&["END"], &["EN", "T", "E"]);
        assert_eq!(pieces, ["", "ENT", "", "E"]);
        assert_eq!(text, "ENTE");
    }

    #[test]
    fn the_earliest_stop_counts() {
        let (_, text) = shown(&["c", "b"], &["abc"]);
        assert_eq!(text, "a");
    }
}
