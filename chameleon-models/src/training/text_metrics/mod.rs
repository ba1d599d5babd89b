//! Scores of generated answers against reference answers: BLEU, ROUGE and METEOR.
//!
//! Owns: the scores and the tokenisation each of them prescribes. They equal those of the Python packages that
//! papers cite: BLEU as `sacrebleu` counts it (13a tokens, exponential smoothing), ROUGE-1, ROUGE-2 and ROUGE-L as
//! `rouge-score` does, METEOR as `nltk` does with its exact and stem stages. The synonym stage needs `WordNet`,
//! which is not part of this program, so our METEOR is at most that of a run with it; a [`Meteor`] lists its stages.
//! Does not own: reading files, and the generation of answers.
//!
//! All scores are on the scale from 0 to 100.
//!
//! ```
//! use chameleon_models::training::text_metrics::{Stemming, bleu, meteor, rouge};
//!
//! let pairs = [
//!     ("a robin sings in the morning", "a robin sings in the morning light"),
//!     ("it rains", "it rained"),
//! ];
//! assert!(bleu(&pairs).score > 0.0);
//! assert_eq!(rouge(&pairs, Stemming::Porter).rouge1.round(), 96.0);
//! assert!(meteor(&pairs).score > 50.0);
//! ```

mod bleu;
mod meteor;
mod ngrams;
mod porter;
mod rouge;
mod tokens;

pub use bleu::{Bleu, bleu};
pub use meteor::{Meteor, meteor};
pub use porter::stem;
pub use rouge::{Rouge, Stemming, rouge};
