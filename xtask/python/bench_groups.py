"""Greedy decoding of sixteen prompts in one batch with PEFT: eight LoRA adapters, named row by row.

    python bench_groups.py INPUTS THREADS [FACTORS]

The factors are those that our side generated and wrote beside the model when it was ready.
"""

import sys
from pathlib import Path

from bench_rounds import limit_threads, serve

limit_threads(sys.argv[2])

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

NUM_PROMPTS, PROMPT_LEN, NUM_TOKENS = 16, 8, 64


def main():
    torch.set_num_threads(int(sys.argv[2]))
    folder = Path(sys.argv[1]) / "smollm2"
    factors = load_file(folder / (sys.argv[3] if len(sys.argv) > 3 else "groups.safetensors"))
    names = sorted({name.split(".")[0] for name in factors}, key=int)
    modules = [name.removeprefix("0.").removesuffix(".a") for name in factors if name.startswith("0.") and name.endswith(".a")]
    rank = factors[f"0.{modules[0]}.a"].shape[0]
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=modules, task_type="CAUSAL_LM")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    with torch.no_grad():
        for module in modules:
            adapted = model.get_base_model().get_submodule(module)
            for name in names:
                adapted.lora_A[name].weight.copy_(factors[f"{name}.{module}.a"])
                adapted.lora_B[name].weight.copy_(factors[f"{name}.{module}.b"])
    model.eval()
    prompts = (100 + torch.arange(NUM_PROMPTS * PROMPT_LEN)).reshape(NUM_PROMPTS, PROMPT_LEN)
    rows = [names[row % len(names)] for row in range(NUM_PROMPTS)]

    def decode():
        settings = {"do_sample": False, "max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS}
        with torch.inference_mode():
            output = model.generate(
                input_ids=prompts,
                attention_mask=torch.ones_like(prompts),
                adapter_names=rows,
                pad_token_id=0,
                **settings,
            )
        return output[:, PROMPT_LEN:].sum().item()

    serve({"prompts": NUM_PROMPTS, "adapters": len(names), "rank": rank}, decode)


if __name__ == "__main__":
    main()
