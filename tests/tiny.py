"""A tiny random llama with a tokenizer whose tokens are bytes, made in a second: what the tests of training train."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentevolve.local.adapter import LoraSettings
from agentevolve.local.rows import collate
from agentevolve.local.train import TrainResult, rows_of, train_lora
from agentevolve.records import Example, Message

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(template: str = CHATML) -> Any:
    """Ids 0 to 255 are byte-level characters in sorted order, 256 is <|im_start|>, 257 is <|im_end|>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={char: place for place, char in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=template)


def folder(path: Path) -> Path:
    """A transformers folder at `path`: 2 layers, 4 heads of 16 on 2 key-value heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 258, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True)).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def example(question: str, *answers: str, weight: float = 1.0) -> Example:
    """A conversation that asks `question` once and then answers in turns."""
    said = [message for answer in answers for message in (Message(role="assistant", content=answer), user("and now?"))]
    prompt = (Message(role="system", content="Play."), user(question))
    return Example(id=question, prompt=prompt, completion=tuple(said[:-1]), weight=weight, sources=(f"trajectory {question}",))


def train(folder: Path, examples: Sequence[Example], out: Path, settings: LoraSettings, **more: Any) -> TrainResult:
    """Make rows of the examples and train on them."""
    return train_lora(folder, rows_of(folder, examples, settings), out, settings, **more)


def user(content: str) -> Message:
    """A user's message."""
    return Message(role="user", content=content)


def fed(model: Any, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rows as one batch, where the model is: on a GPU if there is one."""
    return {name: tensor.to(model.device) for name, tensor in collate(rows).items()}
