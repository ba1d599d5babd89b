"""Loss at the head and its gradient for the hidden states, in PyTorch.

    python bench_head_loss.py INPUTS THREADS plain|chunked

`plain` is what a model does: all logits, cross-entropy, backward. `chunked` computes loss and gradient of a few rows at
a time, as fused kernels do.
"""

import sys

from bench_rounds import limit_threads, serve

limit_threads(sys.argv[2])

import numpy
import torch

NUM_ROWS, HIDDEN, VOCAB = 1024, 576, 49152
CHUNK_ROWS = 128


def noise(rows, columns, width):
    """The same numbers as on the other side: a hash of their place, spread evenly around zero."""
    place = numpy.arange(rows * columns, dtype=numpy.uint32)
    place *= numpy.uint32(2654435761)
    values = (place / 4294967296.0 - 0.5) * width
    return torch.from_numpy(values.astype(numpy.float32)).reshape(rows, columns)


def plain(hidden, embedding, targets):
    hidden = hidden.detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(hidden @ embedding.T, targets)
    loss.backward()
    return loss.item(), hidden.grad


@torch.no_grad()
def chunked(hidden, embedding, targets):
    gradient = torch.empty_like(hidden)
    total = 0.0
    for start in range(0, len(hidden), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        logits = hidden[rows] @ embedding.T
        sums = logits.logsumexp(1, keepdim=True)
        wanted = targets[rows].unsqueeze(1)
        total += (sums - logits.gather(1, wanted)).sum().item()
        logits.sub_(sums).exp_()
        logits.scatter_add_(1, wanted, torch.full_like(sums, -1.0))
        gradient[rows] = logits.div_(len(hidden)) @ embedding
    return total / len(hidden), gradient


def main():
    torch.set_num_threads(int(sys.argv[2]))
    compute = {"plain": plain, "chunked": chunked}[sys.argv[3]]
    hidden, embedding = noise(NUM_ROWS, HIDDEN, 4.0), noise(VOCAB, HIDDEN, 0.2)
    targets = torch.arange(NUM_ROWS) * 37 % VOCAB

    def one_round():
        loss, gradient = compute(hidden, embedding, targets)
        return loss + gradient.norm().item()

    serve({"rows": NUM_ROWS, "vocab": VOCAB}, one_round)


if __name__ == "__main__":
    main()
