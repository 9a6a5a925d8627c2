"""Rendering an example to the token ids that training sees: the very ids the server sees when the agent acts.

A row is built segment by segment: what the chat template puts before an answer, the answer, its end-of-turn token. Only the
answers and their end-of-turn tokens carry a label. That the segments' ids are those of the whole conversation is checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example, Message

IGNORED = -100  # the label of a token that is not learnt (torch's ignore_index)
# the turn markers of the common chat templates: ChatML, Llama 3, Phi, Gemma, DeepSeek, Llama 2, Mistral
MARKERS = re.compile(r"<(?=\|[^|<>]*\|>|｜|/?s>|(?:start|end)_of_turn>)|\[(?=/?(?:INST|SYSTEM_PROMPT)\])")


class Row(NamedTuple):
    """One training row: token ids, and as many labels, each the id at its own place or IGNORED. `weight` scales its loss.

    `other_ids` and `other_labels` are what it is set against: the rejected row of a preference, or for KTO a completion that
    belongs to another prompt. `sign` is -1 for an undesirable row.
    """

    ids: list[int]
    labels: list[int]
    weight: float = 1.0
    other_ids: list[int] = []  # noqa: RUF012
    other_labels: list[int] = []  # noqa: RUF012
    sign: int = 1


def clean(text: str) -> str:
    """`text` with a space in every chat marker such as `<|im_end|>`, so that no tokenizer reads it as a control token.

    Servers and tokenizers parse such markers in the content of a message too; text from outside must not end its own turn.
    Text without a marker comes back unchanged.
    """
    return MARKERS.sub(lambda match: match.group() + " ", text)


def render(example: Example, tokenizer: Any) -> Row:
    """The row of `example` under the chat template of `tokenizer` (a transformers tokenizer); it ends with the last learnt token.

    Raises AgentevolveError when the example has nothing to learn or the template does not render it prefix by prefix.
    """
    messages = [*example.prompt, *example.completion]
    ids: list[int] = []
    labels: list[int] = []
    text = ""
    for turn in _answers(example):
        before, answer = _template(tokenizer, messages[:turn], start=True), messages[turn].content
        after = _template(tokenizer, messages[: turn + 1], start=False)
        if not before.startswith(text) or not after.startswith(before + answer):
            raise _unstable(example, turn)
        context = _tokens(tokenizer, before[len(text) :])
        said = [*_tokens(tokenizer, answer), *_end_of_turn(tokenizer, after[len(before + answer) :], example, turn)]
        ids += context + said
        labels += [IGNORED] * len(context) + said
        text = before + answer + tokenizer.decode(said[-1:])
    if _tokens(tokenizer, text) != ids:
        raise _unstable(example, turn)
    return Row(ids, labels, example.weight)


def render_all(examples: Sequence[Example], tokenizer: Any, objective: str) -> list[Row]:
    """The rows of `examples` for an objective: sft, dpo (each example needs its rejected completion) or kto.

    KTO sets each prompt against the completion of the next example, as its estimate of the divergence asks for.
    Raises AgentevolveError for a preference without a rejected completion, or a single example for kto.
    """
    rows = [render(example, tokenizer) for example in examples]
    if objective == "sft":
        return rows
    others = [example.rejected for example in examples]
    if objective == "kto":
        if len(examples) < 2:
            raise AgentevolveError("kto compares each example with another one, and there is only one")
        others = [examples[place - len(examples) + 1].completion for place in range(len(examples))]
    made = []
    for example, row, other in zip(examples, rows, others, strict=True):
        if other is None:
            raise AgentevolveError(f"example {example.id}: dpo needs a rejected completion")
        against = render(example.model_copy(update={"completion": other}), tokenizer)
        sign = 1 if example.desirable or objective == "dpo" else -1
        made.append(row._replace(other_ids=against.ids, other_labels=against.labels, sign=sign))
    return made


def fit(rows: Sequence[Row], max_length: int) -> list[Row]:
    """The rows cut to `max_length` tokens; a row that has no learnt token left, or is set against none, is dropped."""

    def learnt(labels: list[int]) -> bool:
        return any(label != IGNORED for label in labels[1:])

    lists = ("ids", "labels", "other_ids", "other_labels")
    cut = [row._replace(**{name: getattr(row, name)[:max_length] for name in lists}) for row in rows]
    return [row for row in cut if learnt(row.labels) and (learnt(row.other_labels) or not row.other_ids)]


def collate(batch: Sequence[dict[str, Any]], pad: int) -> dict[str, Any]:
    """Rows as tensors padded on the right: input_ids, attention_mask, labels (rows, length) and weight (rows,).

    Rows that are set against others also give other_ids and other_labels, sign and place (rows,). A single row needs no mask:
    without one, attention takes its quicker causal path.
    """
    import torch

    def padded(key: str, value: int) -> Any:
        rows = [torch.tensor(row[key]) for row in batch]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    tensors = {"input_ids": padded("ids", pad), "labels": padded("labels", IGNORED)}
    if len(batch) > 1:
        lengths = torch.tensor([len(row["ids"]) for row in batch])
        tensors["attention_mask"] = (torch.arange(tensors["input_ids"].shape[1]) < lengths[:, None]).long()
    if batch[0].get("other_ids"):
        tensors |= {"other_ids": padded("other_ids", pad), "other_labels": padded("other_labels", IGNORED)}
        tensors |= {name: torch.tensor([row[name] for row in batch]) for name in ("sign", "place")}
    return {**tensors, "weight": torch.tensor([row["weight"] for row in batch])}


def _answers(example: Example) -> list[int]:
    """The places of the learnt messages in prompt + completion."""
    start = len(example.prompt)
    places = [start + place for place, message in enumerate(example.completion) if message.role == "assistant"]
    if not places:
        raise AgentevolveError(f"example {example.id}: its completion has no assistant message, so there is nothing to learn")
    return places


def _template(tokenizer: Any, messages: Sequence[Message], *, start: bool) -> str:
    dumped = [message.model_dump() for message in messages]
    return str(tokenizer.apply_chat_template(dumped, tokenize=False, add_generation_prompt=start))


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _end_of_turn(tokenizer: Any, tail: str, example: Example, turn: int) -> list[int]:
    """The one control token that starts `tail`, what the template puts after an answer: the model must learn to stop."""
    tokens = _tokens(tokenizer, tail)[:1]
    if not tokens or tokens[0] not in tokenizer.added_tokens_decoder or not tail.startswith(tokenizer.decode(tokens)):
        raise AgentevolveError(f"example {example.id}: the template ends message {turn} with {tail!r}, not with a control token")
    return tokens


def _unstable(example: Example, turn: int) -> AgentevolveError:
    return AgentevolveError(
        f"example {example.id}: the chat template is not prefix-stable at message {turn}: training would see other tokens than"
        " the server does (does the message start with blanks, or does the template rewrite earlier messages?)"
    )
