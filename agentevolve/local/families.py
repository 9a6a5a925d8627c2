"""The decoder families that are fine-tuned here and whose adapters llama.cpp serves: its names, and its order of rows.

The names of tensors are the gguf package's own map for the family. A family stands here when a test has shown that base and
adapter give the same log-probabilities in torch and in llama.cpp.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from agentevolve.protocols import AgentevolveError

PREFIX = "base_model.model."  # PEFT's, before transformers' name of a layer


class Family(NamedTuple):
    """A family: `gguf` is llama.cpp's name for it.

    `pairs`: llama.cpp rotates neighbouring pairs of a head's rows, transformers its two halves.
    """

    gguf: str
    pairs: bool = False


# by transformers' model_type
FAMILIES = {
    "llama": Family("llama", pairs=True),
    "mistral": Family("llama", pairs=True),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "gemma3_text": Family("gemma3"),
    "phi3": Family("phi3"),
}


def family_of(model_type: Any) -> Family:
    """The family of a transformers model. Raises AgentevolveError, naming those that are known, for another one."""
    found = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if found is None:
        raise AgentevolveError(f"its architecture is {model_type!r:.80}; known: {', '.join(sorted(FAMILIES))}")
    return found


def model_type(gguf: str) -> str:
    """Transformers' model_type for what a GGUF file of that architecture holds; the architecture itself where none is known."""
    return next((name for name, family in FAMILIES.items() if family.gguf == gguf), gguf)


class Names:
    """llama.cpp's names for the linear layers of a model, by its `config.json`."""

    def __init__(self, config: dict[str, Any]) -> None:
        import gguf

        self.family = family_of(config.get("model_type"))
        self._config = config
        arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self.family.gguf)
        self._names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])

    def of(self, tensor: str) -> tuple[str, str] | None:
        """The layer's name and "lora_a" (rank, in) or "lora_b" (out, rank), of PEFT's name for a tensor; None if it has none."""
        layer, _, side = tensor.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        name = self._names.get_name(layer) if tensor.startswith(PREFIX) and side in ("lora_A", "lora_B") else None
        return (name, side.lower()) if name else None

    def heads(self, name: str) -> int:
        """Into how many heads the rows of the layer are put in pairs; 0 if they stay as they are."""
        counts = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
        return int(self._config[counts[last]]) if self.family.pairs and (last := name.rpartition(".")[2]) in counts else 0
