//! Messages that are held while a screen uses the terminal.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use indicatif::ProgressDrawTarget;

use super::{Output, bar_target};

/// The held messages; `None` while messages are printed at once.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: RefCell<Option<Vec<Rc<str>>>>,
}

impl Waiting {
    /// Keeps a message if messages are held now; returns whether it was kept.
    pub(super) fn takes(&self, message: &impl Display) -> bool {
        match &mut *self.messages.borrow_mut() {
            Some(messages) => {
                messages.push(message.to_string().into());
                true
            }
            None => false,
        }
    }
}

/// Holds messages and bars back until it is dropped; then the messages are printed.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    output: &'a Output,
}

impl Output {
    /// Holds messages and bars back.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
        *self.waiting.messages.borrow_mut() = Some(Vec::new());
        Held { output: self }
    }
}

impl Held<'_> {
    /// The last messages.
    pub(crate) fn last(&self, count: usize) -> Vec<Rc<str>> {
        let messages = self.output.waiting.messages.borrow();
        let messages = messages.as_deref().unwrap_or_default();
        messages[messages.len().saturating_sub(count)..].to_vec()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let messages = self.output.waiting.messages.borrow_mut().take();
        self.output
            .bars
            .set_draw_target(bar_target(self.output.level));
        for message in messages.into_iter().flatten() {
            self.output.message(&message);
        }
    }
}
