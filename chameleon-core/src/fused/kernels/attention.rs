//! Causal attention over whole sequences, heads side by side in a row as projections leave them.
//!
//! Each key-value head of each sequence is one task: its queries, keys and values are gathered and rotated, scores are
//! computed for blocks of queries against the keys before them, and nothing of the size `seq x seq` is kept for the
//! backward pass, which computes the probabilities again.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::product::{Matrix, Product};
use super::scores::{MaskedSoftmax, SoftCap, SoftCapBackward, SoftmaxBackward};
use super::vectorised;
use crate::fused::inputs::ScoreRule;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct AttentionSizes {
    pub(in crate::fused) batch: usize,
    pub(in crate::fused) seq_len: usize,
    pub(in crate::fused) num_heads: usize,
    pub(in crate::fused) num_kv_heads: usize,
    pub(in crate::fused) head_dim: usize,
}

/// Cosines and sines of the rotary embedding of a head's halves; both empty if there is none.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct Rotary<'a> {
    /// `[seq, half]`
    pub(in crate::fused) cos: &'a [f32],
    /// `[seq, half]`
    pub(in crate::fused) sin: &'a [f32],
    /// Pairs of a head that rotate; what is behind them in the head stays as it is.
    pub(in crate::fused) half: usize,
}

/// Queries, keys and values.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct Attention<'a> {
    pub(in crate::fused) sizes: AttentionSizes,
    /// `[batch, seq, heads * head_dim]`
    pub(in crate::fused) query: &'a [f32],
    /// `[batch, seq, kv_heads * head_dim]`
    pub(in crate::fused) key: &'a [f32],
    /// `[batch, seq, kv_heads * head_dim]`
    pub(in crate::fused) value: &'a [f32],
    pub(in crate::fused) rotary: Rotary<'a>,
    pub(in crate::fused) rule: ScoreRule,
}

/// Gradients of the inputs.
pub(in crate::fused) struct AttentionGradients {
    pub(in crate::fused) query: Vec<f32>,
    pub(in crate::fused) key: Vec<f32>,
    pub(in crate::fused) value: Vec<f32>,
}

/// Queries whose scores exist at a time.
const BLOCK: usize = 128;

impl AttentionSizes {
    fn group(self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Which columns of a row belong to a head.
    fn columns(self, head_idx: usize) -> Range<usize> {
        head_idx * self.head_dim..(head_idx + 1) * self.head_dim
    }

    /// Blocks of queries.
    fn blocks(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.seq_len)
            .step_by(BLOCK)
            .map(move |start| start..(start + BLOCK).min(self.seq_len))
    }

    /// One task for each key-value head of each sequence.
    fn tasks(self) -> usize {
        self.batch * self.num_kv_heads
    }
}

impl Attention<'_> {
    /// `[batch, seq, heads * head_dim]`
    pub(in crate::fused) fn forward(self) -> Vec<f32> {
        let sizes = self.sizes;
        let heads: Vec<Vec<Vec<f32>>> = (0..sizes.tasks())
            .into_par_iter()
            .map(|task| {
                let part = self.part(task);
                (0..sizes.group())
                    .map(|member| part.attend(&part.query(member)))
                    .collect()
            })
            .collect();
        let heads: Vec<&[f32]> = heads.iter().flatten().map(Vec::as_slice).collect();
        sizes.side_by_side(&heads, sizes.num_heads)
    }

    /// The gradients of all inputs, given that of the output, `[batch, seq, heads * head_dim]`.
    pub(in crate::fused) fn backward(self, grad: &[f32]) -> AttentionGradients {
        let sizes = self.sizes;
        let parts: Vec<PartGradients> = (0..sizes.tasks())
            .into_par_iter()
            .map(|task| self.part(task).backward(grad))
            .collect();
        let queries: Vec<&[f32]> = parts
            .iter()
            .flat_map(|part| part.queries.iter().map(Vec::as_slice))
            .collect();
        let keys: Vec<&[f32]> = parts.iter().map(|part| part.key.as_slice()).collect();
        let values: Vec<&[f32]> = parts.iter().map(|part| part.value.as_slice()).collect();
        AttentionGradients {
            query: sizes.side_by_side(&queries, sizes.num_heads),
            key: sizes.side_by_side(&keys, sizes.num_kv_heads),
            value: sizes.side_by_side(&values, sizes.num_kv_heads),
        }
    }

    fn part(&self, task: usize) -> Part<'_> {
        let (batch_idx, kv_head_idx) = (
            task / self.sizes.num_kv_heads,
            task % self.sizes.num_kv_heads,
        );
        let gather = |rows, scale| {
            let mut head = self.gather(rows, self.sizes.num_kv_heads, batch_idx, kv_head_idx);
            if let Some(scale) = scale {
                self.rotary.apply(&mut head, self.sizes.head_dim, scale);
            }
            head
        };
        Part {
            whole: self,
            batch_idx,
            kv_head_idx,
            key: gather(self.key, Some(1.0)),
            value: gather(self.value, None),
        }
    }

    /// One head of one sequence, `[seq, head_dim]`.
    fn gather(
        &self,
        rows: &[f32],
        num_heads: usize,
        batch_idx: usize,
        head_idx: usize,
    ) -> Vec<f32> {
        let sizes = self.sizes;
        let width = num_heads * sizes.head_dim;
        let first = batch_idx * sizes.seq_len * width;
        let mut head = Vec::with_capacity(sizes.seq_len * sizes.head_dim);
        for row in rows[first..first + sizes.seq_len * width].chunks_exact(width) {
            head.extend_from_slice(&row[sizes.columns(head_idx)]);
        }
        head
    }
}

impl AttentionSizes {
    /// Heads `[seq, head_dim]` of all sequences as rows `[batch, seq, heads * head_dim]`.
    fn side_by_side(self, heads: &[&[f32]], num_heads: usize) -> Vec<f32> {
        let width = num_heads * self.head_dim;
        let mut rows = vec![0.0; self.batch * self.seq_len * width];
        rows.par_chunks_mut(width)
            .with_min_len(32)
            .enumerate()
            .for_each(|(row_idx, row)| {
                let (batch_idx, position) = (row_idx / self.seq_len, row_idx % self.seq_len);
                for head_idx in 0..num_heads {
                    let head = heads[batch_idx * num_heads + head_idx];
                    row[self.columns(head_idx)].copy_from_slice(&head[self.columns(position)]);
                }
            });
        rows
    }
}

impl Rotary<'_> {
    /// Applies the rotary embedding to a head and scales it, `[seq, head_dim]`.
    fn apply(self, head: &mut [f32], head_dim: usize, scale: f32) {
        vectorised(TurnHead {
            rotary: self,
            head,
            head_dim,
            scale,
            direction: 1.0,
        });
    }

    /// Applies the inverse rotary embedding to a gradient, and scales it.
    fn undo(self, head: &mut [f32], head_dim: usize, scale: f32) {
        vectorised(TurnHead {
            rotary: self,
            head,
            head_dim,
            scale,
            direction: -1.0,
        });
    }
}

struct TurnHead<'a> {
    rotary: Rotary<'a>,
    head: &'a mut [f32],
    head_dim: usize,
    scale: f32,
    direction: f32,
}

impl WithSimd for TurnHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            rotary,
            head,
            head_dim,
            scale,
            direction,
        } = self;
        if rotary.cos.is_empty() {
            for x in head {
                *x *= scale;
            }
            return;
        }
        let half = rotary.half;
        let angles = rotary
            .cos
            .chunks_exact(half)
            .zip(rotary.sin.chunks_exact(half));
        for (row, (cos, sin)) in head.chunks_exact_mut(head_dim).zip(angles) {
            let (row, rest) = row.split_at_mut(2 * half);
            for x in rest {
                *x *= scale;
            }
            let (firsts, seconds) = row.split_at_mut(half);
            let pairs = firsts.iter_mut().zip(seconds);
            for ((first, second), (&cos, &sin)) in pairs.zip(cos.iter().zip(sin)) {
                let (x, y) = (*first, *second);
                *first = (x * cos - y * (sin * direction)) * scale;
                *second = (y * cos + x * (sin * direction)) * scale;
            }
        }
    }
}

/// One key-value head of one sequence.
struct Part<'a> {
    whole: &'a Attention<'a>,
    batch_idx: usize,
    kv_head_idx: usize,
    /// `[seq, head_dim]`, rotated
    key: Vec<f32>,
    /// `[seq, head_dim]`
    value: Vec<f32>,
}

struct PartGradients {
    /// `[seq, head_dim]` for each query head of the group.
    queries: Vec<Vec<f32>>,
    key: Vec<f32>,
    value: Vec<f32>,
}

impl Part<'_> {
    #[expect(clippy::cast_possible_truncation, reason = "the scores are f32")]
    fn scale(&self) -> f32 {
        self.whole.rule.scale as f32
    }

    #[expect(clippy::cast_possible_truncation, reason = "the scores are f32")]
    fn soft_cap(&self) -> Option<f32> {
        self.whole.rule.soft_cap.map(|cap| cap as f32)
    }

    /// The keys that any query of a block attends to.
    fn keys(&self, block: &Range<usize>) -> Range<usize> {
        self.whole.rule.first_key(block.start)..block.end
    }

    fn head_idx(&self, member: usize) -> usize {
        self.kv_head_idx * self.whole.sizes.group() + member
    }

    /// The queries of one head of the group, rotated and scaled: `[seq, head_dim]`.
    fn query(&self, member: usize) -> Vec<f32> {
        let whole = self.whole;
        let head_idx = self.head_idx(member);
        let mut query = whole.gather(whole.query, whole.sizes.num_heads, self.batch_idx, head_idx);
        whole
            .rotary
            .apply(&mut query, whole.sizes.head_dim, self.scale());
        query
    }

    /// The first rows of a head as a matrix.
    fn rows<'h>(&self, head: &'h [f32], rows: Range<usize>) -> Matrix<'h> {
        let head_dim = self.whole.sizes.head_dim;
        Matrix::from_rows(&head[rows.start * head_dim..rows.end * head_dim], head_dim)
    }

    /// `[queries, keys]`, the products of a block's queries with its keys, under the soft cap if there is one.
    fn scores(&self, query: &[f32], block: &Range<usize>) -> Vec<f32> {
        let keys = self.rows(&self.key, self.keys(block)).transpose();
        let mut scores = Product::of(self.rows(query, block.clone()), keys).compute_alone();
        if let Some(cap) = self.soft_cap() {
            vectorised(SoftCap {
                scores: &mut scores,
                cap,
            });
        }
        scores
    }

    /// Scores become probabilities: each row a distribution over the keys that its query attends to, zero elsewhere.
    fn softmax(&self, scores: &mut [f32], block: &Range<usize>) {
        vectorised(MaskedSoftmax {
            scores,
            keys: self.keys(block),
            first_query: block.start,
            rule: self.whole.rule,
        });
    }

    /// `[seq, head_dim]`
    fn attend(&self, query: &[f32]) -> Vec<f32> {
        let mut output = Vec::with_capacity(query.len());
        for block in self.whole.sizes.blocks() {
            let keys = self.keys(&block);
            let mut probs = self.scores(query, &block);
            self.softmax(&mut probs, &block);
            let probs = Matrix::from_rows(&probs, keys.len());
            let values = self.rows(&self.value, keys);
            output.extend(Product::of(probs, values).compute_alone());
        }
        output
    }

    fn backward(&self, grad: &[f32]) -> PartGradients {
        let whole = self.whole;
        let AttentionSizes {
            num_heads,
            head_dim,
            ..
        } = whole.sizes;
        let mut gradients = PartGradients {
            queries: Vec::new(),
            key: vec![0.0; self.key.len()],
            value: vec![0.0; self.value.len()],
        };
        for member in 0..whole.sizes.group() {
            let query = self.query(member);
            let head_idx = self.head_idx(member);
            let grad = whole.gather(grad, num_heads, self.batch_idx, head_idx);
            let mut query_grad = Vec::with_capacity(query.len());
            for block in whole.sizes.blocks() {
                let keys = self.keys(&block);
                let mut probs = self.scores(&query, &block);
                let capped = self.soft_cap().map(|cap| (probs.clone(), cap));
                self.softmax(&mut probs, &block);
                let block_grad = self.rows(&grad, block.clone());
                let seen = keys.start * head_dim..keys.end * head_dim;
                let transposed = Matrix::from_rows(&probs, keys.len()).transpose();
                Product::of(transposed, block_grad)
                    .add_alone_to(&mut gradients.value[seen.clone()]);

                let values = self.rows(&self.value, keys.clone()).transpose();
                let mut score_grad = Product::of(block_grad, values).compute_alone();
                vectorised(SoftmaxBackward {
                    grad: &mut score_grad,
                    probs: &probs,
                    num_keys: keys.len(),
                });
                if let Some((scores, cap)) = &capped {
                    vectorised(SoftCapBackward {
                        grad: &mut score_grad,
                        scores,
                        cap: *cap,
                    });
                }
                let score_grad = Matrix::from_rows(&score_grad, keys.len());
                let keys = self.rows(&self.key, keys);
                query_grad.extend(Product::of(score_grad, keys).compute_alone());
                Product::of(score_grad.transpose(), self.rows(&query, block))
                    .add_alone_to(&mut gradients.key[seen]);
            }
            whole.rotary.undo(&mut query_grad, head_dim, self.scale());
            gradients.queries.push(query_grad);
        }
        // The queries were scaled already.
        whole.rotary.undo(&mut gradients.key, head_dim, 1.0);
        gradients
    }
}
