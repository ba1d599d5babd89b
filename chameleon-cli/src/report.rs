//! Reports: what scores allow one to say, and one self-contained HTML page that shows it.

mod scores;

pub(crate) use scores::{
    BreakdownRow, Duel, Finding, MethodScores, Opponent, breakdown, finding, percent, signed,
};
