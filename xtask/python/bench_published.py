"""A whole run of the published recipe's shape in plain PyTorch: a dense generator writes the head's factors from the
mean of the batch, the trunk is frozen and passed in every epoch.

    python bench_published.py INPUTS THREADS
"""

import json
import sys
from pathlib import Path

from bench_rounds import limit_threads, serve

limit_threads(sys.argv[2])

import torch
from transformers import AutoModelForCausalLM

NUM_EPOCHS, BATCH_SIZE, RANK = 10, 8, 4


class Generator(torch.nn.Module):
    """An MLP from a prompt to all numbers of two factors; the second one starts at zero."""

    def __init__(self, hidden_size, vocab_size):
        super().__init__()
        self.sizes = hidden_size, vocab_size
        self.first = torch.nn.Linear(hidden_size, 64)
        self.second = torch.nn.Linear(64, 32)
        self.last = torch.nn.Linear(32, RANK * (hidden_size + vocab_size))
        with torch.no_grad():
            self.last.weight[RANK * hidden_size :].zero_()
            self.last.bias[RANK * hidden_size :].zero_()

    def forward(self, prompt):
        hidden_size, vocab_size = self.sizes
        flat = self.last(torch.relu(self.second(torch.relu(self.first(prompt)))))
        a, b = flat.split([RANK * hidden_size, RANK * vocab_size])
        return a.reshape(hidden_size, RANK), b.reshape(RANK, vocab_size)


def main():
    torch.set_num_threads(int(sys.argv[2]))
    folder = Path(sys.argv[1]) / "gpt2"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    lines = torch.tensor(json.loads((folder / "lines.json").read_text()))
    config = model.config

    def run():
        torch.manual_seed(1)
        generator = Generator(config.n_embd, config.vocab_size)
        optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-7, weight_decay=0.0)
        for _ in range(NUM_EPOCHS):
            losses = []
            for batch in lines.split(BATCH_SIZE):
                with torch.no_grad():
                    prompt = model.transformer.wte(batch[:, :1]).mean((0, 1))
                    hidden = model.transformer(batch).last_hidden_state[:, :-1]
                a, b = generator(torch.nn.functional.normalize(prompt, dim=0))
                logits = model.lm_head(hidden) + (hidden @ a) @ b
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
                loss.backward()
                torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss.item())
        return sum(losses) / len(losses)

    generator = Generator(config.n_embd, config.vocab_size)
    trainable = sum(parameter.numel() for parameter in generator.parameters())
    serve({"trainable": trainable, "epochs": NUM_EPOCHS}, run)


if __name__ == "__main__":
    main()
