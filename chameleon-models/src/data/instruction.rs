//! The prompt of Alpaca: an instruction, perhaps with an input, and the answer to it.
//!
//! The words are those of the Stanford Alpaca release, so that models trained on it receive a familiar format; the
//! answer begins on a line of its own.

use std::ops::Range;

use super::document::{AnswerEnd, Exchange};

const WITH_INPUT: &str = "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n";
const WITHOUT_INPUT: &str = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n";

/// The part of an instruction that its prompt embedding is computed from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InstructionCondition {
    /// The instruction alone: what is to be done.
    Task,
    /// The instruction and its input: what is to be done, and with what.
    #[default]
    TaskAndInput,
}

/// An instruction, what it is to be applied to, and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction<'a> {
    /// What is to be done.
    pub(super) task: &'a str,
    /// What it is to be done with; blank for none.
    pub(super) input: &'a str,
    /// The answer; empty for a prompt that awaits one.
    pub(super) output: &'a str,
}

impl Instruction<'_> {
    /// The text, and where its parts are.
    pub(super) fn render(&self, condition: InstructionCondition) -> (String, Exchange) {
        let has_input = !self.input.trim().is_empty();
        let mut text = String::from(if has_input { WITH_INPUT } else { WITHOUT_INPUT });
        text.push_str("### Instruction:\n");
        let task = pushed(&mut text, self.task);
        let mut condition_end = task.end;
        if has_input {
            text.push_str("\n\n### Input:\n");
            let input = pushed(&mut text, self.input);
            if condition == InstructionCondition::TaskAndInput {
                condition_end = input.end;
            }
        }
        text.push_str("\n\n### Response:\n");
        let answer = pushed(&mut text, self.output);
        let exchange = Exchange {
            condition: task.start..condition_end,
            answer_start: answer.start,
            end: AnswerEnd::Unwritten,
        };
        (text, exchange)
    }
}

/// Appends `part` and returns its range.
fn pushed(text: &mut String, part: &str) -> Range<usize> {
    let start = text.len();
    text.push_str(part);
    start..text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORT: Instruction<'_> = Instruction {
        task: "Sort the words.",
        input: "b a",
        output: "a b",
    };

    #[test]
    fn everything_before_the_answer_is_prompt() {
        let (text, exchange) = SORT.render(InstructionCondition::TaskAndInput);
        assert_eq!(&text[exchange.answer_start..], "a b");
        assert!(text[..exchange.answer_start].ends_with("### Input:\nb a\n\n### Response:\n"));
        assert_eq!(
            &text[exchange.condition],
            "Sort the words.\n\n### Input:\nb a"
        );
    }

    #[test]
    fn the_task_alone_can_be_the_condition() {
        let (text, exchange) = SORT.render(InstructionCondition::Task);
        assert_eq!(&text[exchange.condition], "Sort the words.");
    }

    #[test]
    fn a_blank_input_is_left_out() {
        let without = Instruction {
            input: " \n",
            ..SORT
        };
        let (text, exchange) = without.render(InstructionCondition::TaskAndInput);
        assert!(!text.contains("Input"));
        assert!(text.starts_with("Below is an instruction that describes a task. "));
        assert_eq!(&text[exchange.condition], "Sort the words.");
        assert_eq!(&text[exchange.answer_start..], "a b");
    }
}
