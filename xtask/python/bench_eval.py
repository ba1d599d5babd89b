"""Scoring text with Hugging Face: a forward pass of 4 x 512 tokens with its loss.

    python bench_eval.py INPUTS THREADS MODEL
"""

import json
import sys
from pathlib import Path

from bench_rounds import limit_threads, serve

limit_threads(sys.argv[2])

import torch
from transformers import AutoModelForCausalLM


def main():
    torch.set_num_threads(int(sys.argv[2]))
    folder = Path(sys.argv[1]) / sys.argv[3]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    batch = torch.tensor(json.loads((folder / "eval.json").read_text()))

    def score():
        with torch.inference_mode():
            return model(input_ids=batch, labels=batch).loss.item()

    serve({"tokens": batch.numel()}, score)


if __name__ == "__main__":
    main()
