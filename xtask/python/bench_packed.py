"""A model of Hugging Face as a GGUF file: linear modules as Q4_1, the embedding as Q8_0."""

import gguf
import numpy as np

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write(model, path):
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    # Never used to tokenise anything, but a file has one.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["t", "0", *(f"t{token_id}" for token_id in range(config.vocab_size - 2))])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    for name, tensor in model.model.state_dict().items():
        add(writer, config, name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add(writer, config, name, values):
    if name == "embed_tokens.weight":
        pack(writer, "token_embd.weight", values, gguf.GGMLQuantizationType.Q8_0)
    elif name == "norm.weight":
        writer.add_tensor("output_norm.weight", values)
    else:
        _, layer, module = name.removesuffix(".weight").split(".", 2)
        stored = f"blk.{layer}.{NAMES[module]}.weight"
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(NAMES[module])
        if heads:
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        if values.ndim == 1:
            writer.add_tensor(stored, values)
        else:
            pack(writer, stored, values, gguf.GGMLQuantizationType.Q4_1)


def pack(writer, name, values, dtype):
    writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), dtype), raw_dtype=dtype)
