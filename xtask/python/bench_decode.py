"""Greedy decoding of one stream: `generate` of Hugging Face in f32, or llama.cpp on a packed file.

    python bench_decode.py INPUTS THREADS f32|packed
"""

import sys
from pathlib import Path

from bench_rounds import limit_threads, serve

limit_threads(sys.argv[2])

PROMPT = list(range(100, 108))
NUM_TOKENS = 64


def hugging_face(folder, num_threads):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(num_threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.tensor([PROMPT])

    def decode():
        with torch.inference_mode():
            settings = {"do_sample": False, "max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS}
            output = model.generate(prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, **settings)
        return output[0, len(PROMPT) :].sum().item()

    return decode


def llama_cpp(folder, num_threads):
    from llama_cpp import Llama

    model = Llama(str(folder / "packed.gguf"), n_threads=num_threads, n_threads_batch=num_threads, n_ctx=512, verbose=False)

    def decode():
        model.reset()
        num_tokens = 0
        for _ in model.generate(PROMPT, temp=0.0, top_k=1, repeat_penalty=1.0):
            num_tokens += 1
            if num_tokens == NUM_TOKENS:
                return num_tokens

    return decode


def main():
    side = {"f32": hugging_face, "packed": llama_cpp}[sys.argv[3]]
    decode = side(Path(sys.argv[1]) / "smollm2", int(sys.argv[2]))
    serve({"tokens": NUM_TOKENS}, decode)


if __name__ == "__main__":
    main()
