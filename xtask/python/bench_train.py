"""Training steps of PyTorch and PEFT: LoRA in every linear module of every layer and at the head.

    python bench_train.py INPUTS THREADS MODEL
"""

import json
import sys
from pathlib import Path

from bench_rounds import limit_threads, serve

limit_threads(sys.argv[2])

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

RANK = 8
LINEAR = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
}


def main():
    torch.set_num_threads(int(sys.argv[2]))
    folder = Path(sys.argv[1]) / sys.argv[3]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    targets = LINEAR[base.config.model_type] + ["lm_head"]
    config = LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, eps=1e-8, weight_decay=0.0)
    batch = torch.tensor(json.loads((folder / "batch.json").read_text()))

    def step():
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    serve({"trainable": sum(parameter.numel() for parameter in trained)}, step)


if __name__ == "__main__":
    main()
