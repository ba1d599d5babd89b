//! The thread that decodes.

use std::error::Error;
use std::sync::PoisonError;

use burn::tensor::Tensor;

use super::adapters::{LoadedAdapter, PromptGrouping};
use super::handle::{Phase, Shared};
use super::lock;
use super::ticket::{Event, RequestFailure};
use crate::prompts::embed_prompts;

/// Runs until the engine is closed.
pub(super) fn run(shared: &Shared) {
    loop {
        let mut queue = lock(&shared.queue);
        while queue.waiting.is_empty() && queue.phase != Phase::Closed {
            queue = shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if queue.phase == Phase::Closed {
            return;
        }
        for mut pending in std::mem::take(&mut queue.waiting) {
            queue.num_tokens -= pending.num_tokens;
            (pending.sink)(Event::Failed(RequestFailure::Stopped));
        }
        shared.changed.notify_all();
    }
}

/// Embeds what a prompt is grouped by, and finds its group.
pub(super) fn group(
    shared: &Shared,
    adapter: Option<&LoadedAdapter>,
    token_ids: &[u32],
) -> Result<PromptGrouping, Box<dyn Error + Send + Sync>> {
    let prefix = adapter.map_or(usize::MAX, LoadedAdapter::prefix);
    let counted = &token_ids[..prefix.min(token_ids.len())];
    let embedding: Tensor<2> = embed_prompts(&shared.loaded.model, &[counted]); // [1, hidden]
    let nearest = adapter
        .map(|adapter| (adapter.grouping)(&embedding))
        .transpose()?;
    Ok(PromptGrouping {
        embedding: embedding
            .into_data()
            .convert::<f32>()
            .try_into_vec()
            .expect("the data was just converted to f32"),
        nearest,
    })
}
