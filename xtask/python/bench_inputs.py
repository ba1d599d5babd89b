"""Writes the weights and data that both sides of `cargo xtask bench peers` read.

    python bench_inputs.py FOLDER

Models have the shapes of published ones and seeded random weights: what a step costs does not depend on them, and
nothing has to be downloaded. What is there already is kept.
"""

import json
import sys
from pathlib import Path

import bench_packed
import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

# Rows of token ids: for a training step, for scoring, and for a whole run of several epochs.
TOKENS = {"batch.json": (4, 128), "eval.json": (4, 512), "lines.json": (16, 64)}
# Changes with what is written.
STAMP = "written-2"

MODELS = {
    "smollm2": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
}


def write(name, build, folder):
    torch.manual_seed(1)
    model = build().eval()
    model.save_pretrained(folder)
    vocab_size = model.config.vocab_size
    # Never used to tokenise anything, but a model folder has one.
    vocab = {f"t{token_id}": token_id for token_id in range(vocab_size)}
    Tokenizer(models.WordLevel(vocab, unk_token="t0")).save(str(folder / "tokenizer.json"))
    for seed, (file, shape) in enumerate(TOKENS.items()):
        tokens = torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))
        (folder / file).write_text(json.dumps(tokens.tolist()))
    # Last, because it says that the folder is whole.
    (folder / STAMP).write_text("")
    print(f"wrote {name}")


def write_points(folder):
    """Points of many overlapping groups, and some of them to start from; as many as the paper has prompts."""
    num_points, hidden_size, num_clusters, num_topics = 36718, 768, 1147, 300
    random = np.random.default_rng(7)
    spread = np.arange(1, hidden_size + 1) ** -0.3
    topics = random.standard_normal((num_topics, hidden_size)) * spread
    points = topics[random.integers(0, num_topics, num_points)] * 0.5 + 1.0
    points += random.standard_normal((num_points, hidden_size)) * spread
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    points.tofile(folder / "points.f32")
    points[random.choice(num_points, num_clusters, replace=False)].tofile(folder / "start.f32")
    (folder / STAMP).write_text("")
    print("wrote kmeans")


def main():
    points = Path(sys.argv[1]) / "kmeans"
    points.mkdir(parents=True, exist_ok=True)
    if not (points / STAMP).exists():
        write_points(points)
    for name, build in MODELS.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / STAMP).exists():
            write(name, build, folder)
    packed = Path(sys.argv[1]) / "smollm2" / "packed.gguf"
    if not packed.exists():
        torch.manual_seed(1)
        bench_packed.write(MODELS["smollm2"]().eval(), packed)


if __name__ == "__main__":
    main()
