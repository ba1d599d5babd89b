//! Recent answers to requests with a group, in memory: feedback may make them examples.
//!
//! They are not written anywhere before a client accepts them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Answers that are kept; the oldest leave.
const MAX_ANSWERS: usize = 4096;
/// Bytes of their texts.
const MAX_BYTES: usize = 16 << 20;

/// Recent answers that may become examples.
#[derive(Debug, Default)]
pub(crate) struct RecentAnswers(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    answers: VecDeque<RecentAnswer>,
    num_bytes: usize,
}

/// A prompt and its answer.
#[derive(Debug)]
pub(crate) struct RecentAnswer {
    pub(crate) id: String,
    pub(crate) choice_idx: usize,
    pub(crate) group: GroupAddress,
    pub(crate) prompt: String,
    pub(crate) text: String,
}

/// A group of an adapter.
#[derive(Debug, Clone)]
pub(crate) struct GroupAddress {
    pub(crate) adapter: String,
    pub(crate) key: String,
}

impl RecentAnswer {
    fn num_bytes(&self) -> usize {
        self.prompt.len() + self.text.len()
    }
}

impl RecentAnswers {
    pub(crate) fn push(&self, answer: RecentAnswer) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.num_bytes += answer.num_bytes();
        recent.answers.push_back(answer);
        while recent.answers.len() > MAX_ANSWERS || recent.num_bytes > MAX_BYTES {
            let Some(oldest) = recent.answers.pop_front() else {
                break;
            };
            recent.num_bytes -= oldest.num_bytes();
        }
    }

    /// Takes an answer out; feedback counts once.
    pub(crate) fn take(&self, id: &str, choice_idx: usize) -> Option<RecentAnswer> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |answer: &RecentAnswer| answer.id == id && answer.choice_idx == choice_idx;
        let position = recent.answers.iter().position(is_it)?;
        let answer = recent.answers.remove(position)?;
        recent.num_bytes -= answer.num_bytes();
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: usize, num_bytes: usize) -> RecentAnswer {
        RecentAnswer {
            id: id.to_string(),
            choice_idx: 0,
            group: GroupAddress {
                adapter: "a".to_owned(),
                key: "k".to_owned(),
            },
            prompt: String::new(),
            text: "x".repeat(num_bytes),
        }
    }

    #[test]
    fn the_oldest_answers_leave_and_each_is_taken_once() {
        let recent = RecentAnswers::default();
        for id in 0..MAX_ANSWERS + 2 {
            recent.push(answer(id, 1));
        }
        assert!(recent.take("1", 0).is_none());
        assert!(recent.take("2", 1).is_none());
        assert!(recent.take("2", 0).is_some());
        assert!(recent.take("2", 0).is_none());
        recent.push(answer(9999, MAX_BYTES));
        assert!(recent.take("3", 0).is_none());
        assert!(recent.take("9999", 0).is_some());
    }
}
