"""A tiny random model of each family that is fine-tuned here, as a transformers folder and as the GGUF of the same weights.

Chat templates are the publishers' own, as TRL carries them (Mistral's as its model card has it). The tokens are bytes, a merge,
and the family's control tokens.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
HEADERS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# transformers' classes, the control tokens, those that begin and end a text, the one that ends a turn, TRL's template
KIN: dict[str, tuple[str, tuple[str, ...], str | None, str, str]] = {
    "llama": ("Llama", HEADERS, HEADERS[0], HEADERS[4], "llama3"),
    "mistral": ("Mistral", ("<s>", "</s>"), "<s>", "</s>", ""),
    "qwen2": ("Qwen2", CHATML, None, CHATML[2], "qwen2_5"),
    "qwen3": ("Qwen3", CHATML, None, CHATML[2], "qwen3"),
    "gemma3_text": ("Gemma3", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>", "gemma3"),
    "phi3": ("Phi3", ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), None, "<|end|>", "phi3"),
}
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}


def tokenizer(family: str) -> Any:
    """Ids 0 to 255 are byte-level characters in sorted order, 256 is "th", then come the control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    _, special, begin, end, template = KIN[family]
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    inner = Tokenizer(models.BPE(vocab={text: place for place, text in enumerate(vocabulary)}, merges=[("t", "h")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(special))
    text = files("trl").joinpath(f"chat_templates/{template}.jinja").read_text() if template else MISTRAL
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=begin, eos_token=end, pad_token=special[0], chat_template=text
    )


def folder(path: Path, family: str) -> Path:
    """A transformers folder at `path`; every weight is random, biases and norms too."""
    import torch
    import transformers

    torch.manual_seed(0)
    name, special, *_ = KIN[family]
    more: dict[str, Any] = {"num_hidden_layers": 2, "head_dim": 16}
    if family == "gemma3_text":  # the sixth layer of six sees all
        more |= {"num_hidden_layers": 6, "sliding_window": 8, "query_pre_attn_scalar": 16}
    if family == "phi3":
        more |= {"sliding_window": 2047, "pad_token_id": 257}
        del more["head_dim"]
    config = getattr(transformers, f"{name}{'Text' * (name == 'Gemma3')}Config")(
        vocab_size=257 + len(special), tie_word_embeddings=family in ("qwen2", "gemma3_text"), **SIZES, **more
    )
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.mul_(4)
    model.save_pretrained(path)
    tokenizer(family).save_pretrained(path)
    return path


def gguf_of(folder: Path, path: Path, family: str) -> Path:
    """The folder's model as the GGUF file `path`: every weight in float32."""
    import gguf
    from safetensors.numpy import load_file
    from transformers import AutoConfig, AutoTokenizer

    from agentevolve.local.families import FAMILIES

    config, tokens, kin = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), FAMILIES[family]
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kin.gguf)
    writer = gguf.GGUFWriter(path, kin.gguf)
    heads, dim = config.num_attention_heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(float(rope.get("full_attention", rope)["rope_theta"]))
    if family in ("gemma3_text", "phi3"):
        writer.add_sliding_window(config.sliding_window)
    if family == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.max_position_embeddings)
    _write_tokens(writer, tokens)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, values in load_file(folder / "model.safetensors").items():
        layer, _, kind = name.rpartition(".")
        if kin.pairs and layer.endswith(("q_proj", "k_proj")):
            count = heads if layer.endswith("q_proj") else config.num_key_value_heads
            values = values.reshape(count, 2, dim // 2, -1).swapaxes(1, 2).reshape(values.shape)
        if family == "gemma3_text" and layer.endswith("norm"):
            values = values + 1
        writer.add_tensor(f"{names.get_name(layer)}.{kind}", np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def lora_of(base: Path, path: Path, seed: int, rank: int = 4, size: float = 0.1) -> Path:
    """A GGUF LoRA file of random weights on every linear layer of the GGUF `base`."""
    import gguf

    read, random = gguf.GGUFReader(base), np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, read.get_field("general.architecture").contents())
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    for tensor in read.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            inner, outer = map(int, tensor.shape)
            for side, shape in (("a", (rank, inner)), ("b", (outer, rank))):
                writer.add_tensor(f"{tensor.name}.lora_{side}", random.normal(0, size, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokens(writer: Any, tokens: Any) -> None:
    from gguf import TokenType

    texts = tokens.convert_ids_to_tokens(range(len(tokens)))
    special = set(tokens.all_special_tokens) | {one.content for one in tokens.added_tokens_decoder.values()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types([TokenType.CONTROL if text in special else TokenType.NORMAL for text in texts])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(tokens.eos_token_id)
    writer.add_pad_token_id(tokens.pad_token_id)
    if tokens.bos_token_id is not None:
        writer.add_bos_token_id(tokens.bos_token_id)
    writer.add_add_bos_token(tokens.bos_token_id is not None)
    writer.add_chat_template(tokens.chat_template)
