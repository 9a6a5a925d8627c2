"""Rendering an example to the token ids that training sees: the very ids the server sees when the agent acts.

A row grows answer by answer: the ids of the prompt that the server was given, then the ids of the answer as the template renders
it and of the token that ends it. Only the latter carry a label. A row that a template cannot render so is left out and counted.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example, Message

IGNORED = -100  # the label of a token that is not learnt (torch's ignore_index)
# the first character of what the field's tokenizers read as a control token, or its chat templates as the bound of a turn
MARKERS = re.compile(
    r"""
    <(?=\|[^|<>]*\|>                                                      # ChatML, Llama 3, Phi, Cohere, Granite
      |/?｜                                                                # DeepSeek
      |</?SYS>>                                                           # Llama 2
      |/?(?:s|unk|pad|bos|eos|cls|sep|mask|eo[dpt]|sop|unused_?\d+|extra_id_\d+)>   # SentencePiece, T5, GLM
      |(?:start|end)_of_[a-z_]+>                                          # Gemma, SmolVLM
      |(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)_TOKEN>|(?:EOD|EOT|PRE|MID|SUF|SPECIAL_\d+)>   # Cohere, Code Llama, Nemotron
      |fim_[a-z]+>|fim-[a-z]+>|repo_?name>|file_sep>|filename>|gh_stars>  # StarCoder, SmolLM
      |(?:issue|jupyter|commit)_[a-z_]+>|empty_output>)
    |\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CONTENT|THINK|MODEL_SETTINGS)\]   # Mistral
        |(?:TOOL_CALLS|CALL_ID|ARGS|PREFIX|MIDDLE|SUFFIX|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO)\]
        |(?:CLS|SEP|MASK|PAD|UNK|gMASK)\])                                # BERT, GLM
    """,
    re.VERBOSE,
)
NEEDLE = "a system message"
PAIRED = ("dpo", "kto")  # objectives whose rows are set against others
MERGES = "an answer merges with the text around it, or the template rewrites earlier messages"


class Unfit(AgentevolveError):
    """Why an example makes no row."""


class Rewritten(Unfit):
    """The template shows an answer otherwise than it was given."""


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


class Rows(NamedTuple):
    """What examples became: the rows, the examples they came from, how many were cut, and why how many were left out."""

    rows: list[Row]
    examples: list[Example]
    cut: int
    dropped: dict[str, int]


def clean(text: str, special: Iterable[str] = ()) -> str:
    """`text` with a space in every chat marker such as `<|im_end|>`, so that no tokenizer reads it as a control token.

    Servers and tokenizers parse such markers in the content of a message too; text from outside must not end its own turn.
    `special` are the control tokens of the tokenizer at hand, where one is. Text without a marker comes back unchanged.
    """
    text = MARKERS.sub(r"\g<0> ", text)
    for token in map(str.strip, special):
        while token[1:] and token in text:  # a single character cannot be broken up
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def cleaned(messages: Sequence[Message], special: Collection[str]) -> list[Message]:
    """The messages, each `clean` of the control tokens `special`."""
    known = tuple(special)
    texts = [_clean_again(message.content, known) for message in messages]
    return [
        one if text == one.content else one.model_copy(update={"content": text})
        for one, text in zip(messages, texts, strict=True)
    ]


@functools.lru_cache(maxsize=4_096)  # a conversation's messages are sent again at each turn
def _clean_again(text: str, special: tuple[str, ...]) -> str:
    return clean(text, special)


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The messages for a template that knows no system role: its text comes first in the user's first message.

    So does llama.cpp's server, with the same line feed between.
    """
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    if not rest or rest[0].role != "user":
        return [system.model_copy(update={"role": "user"}), *rest]
    return [rest[0].model_copy(update={"content": f"{system.content}\n{rest[0].content}"}), *rest[1:]]


def alternating(messages: Sequence[Message]) -> list[Message]:
    """The messages with neighbours of the user's joined by a line feed: many templates want the roles to take turns."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role == "user":
            joined[-1] = message.model_copy(update={"content": f"{joined[-1].content}\n{message.content}"})
        else:
            joined.append(message)
    return joined


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """The control tokens of a transformers tokenizer, by id."""
    return {id: token.content for id, token in tokenizer.added_tokens_decoder.items() if token.special}


def prepare(examples: Sequence[Example], tokenizer: Any, objective: str, max_length: int) -> Rows:
    """The rows of `examples` for an objective: sft, grpo, dpo (each example needs its rejected completion) or kto.

    A row is cut to `max_length` tokens; an example that cannot be rendered, or has nothing left to learn, is left out.
    Raises AgentevolveError when nothing is left, or a single example for kto.
    """
    dropped: Counter[str] = Counter()
    own: list[tuple[Example, Row]] = []
    for example in examples:
        with _counted(dropped):
            own.append((example, render(example, tokenizer, max_length)))
    made = []
    for (example, row), other in zip(own, _others([example for example, _ in own], objective), strict=True):
        with _counted(dropped):
            whole = row if objective not in PAIRED else _against(example, row, other, objective, tokenizer, max_length)
            made.append((example, whole, _cut(whole, max_length)))
    if not made:
        raise AgentevolveError(f"nothing to learn in {len(examples)} examples: {_listed(dropped)}")
    cut = sum(whole != row for _, whole, row in made)
    return Rows([row for *_, row in made], [example for example, *_ in made], cut, dict(dropped))


def account(cut: int, dropped: Mapping[str, int], max_length: int) -> str:
    """One line on the rows that were cut or left out, and why; "" when there are none."""
    parts = [f"{cut} rows cut to {max_length} tokens"] if cut else []
    if dropped:
        parts.append(f"{sum(dropped.values())} rows left out ({_listed(dropped)})")
    return "; ".join(parts)


def _listed(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {reason}" for reason, count in Counter(dropped).most_common())


@contextmanager
def _counted(dropped: Counter[str]) -> Iterator[None]:
    try:
        yield
    except Unfit as reason:
        dropped[str(reason)] += 1


def render(example: Example, tokenizer: Any, max_length: int = 2**31) -> Row:
    """The row of `example` under the chat template of `tokenizer` (a transformers tokenizer); it ends with the last learnt token.

    It is not rendered further than the answer that passes `max_length` tokens. Raises Unfit when the example has nothing to
    learn, or the server would see other tokens than training does.
    """
    messages = _shown(example, tokenizer)
    ids: list[int] = []
    labels: list[int] = []
    for place in _answers(messages, len(example.completion)):
        context, said = _answered(tokenizer, messages[:place], messages[place])
        if context[: len(ids)] != ids:
            raise Unfit(MERGES)
        labels += [IGNORED] * (len(context) - len(ids)) + said
        ids = context + said
        if len(ids) > max_length:
            break
    return Row(ids, labels, example.weight)


def _others(examples: Sequence[Example], objective: str) -> Sequence[Sequence[Message] | None]:
    """What each example is set against. KTO: the completion of the next one, as its estimate of the divergence asks for."""
    if objective != "kto":
        return [example.rejected for example in examples]
    if len(examples) == 1:
        raise AgentevolveError("kto compares each example with another one, and there is only one")
    return [examples[place - len(examples) + 1].completion for place in range(len(examples))]


def _against(example: Example, row: Row, other: Sequence[Message] | None, objective: str, tokenizer: Any, max_length: int) -> Row:
    if other is None:
        raise Unfit("dpo needs a rejected completion")
    against = render(example.model_copy(update={"completion": tuple(other)}), tokenizer, max_length)
    sign = 1 if example.desirable or objective == "dpo" else -1
    return row._replace(other_ids=against.ids, other_labels=against.labels, sign=sign)


def _cut(row: Row, max_length: int) -> Row:
    """The row cut to `max_length` tokens; raises Unfit if it has no learnt token left, or is set against none."""

    def learnt(labels: list[int]) -> bool:
        return any(label != IGNORED for label in labels[1:])

    lists = ("ids", "labels", "other_ids", "other_labels")
    cut = row._replace(**{name: getattr(row, name)[:max_length] for name in lists})
    if not learnt(cut.labels) or (cut.other_ids and not learnt(cut.other_labels)):
        raise Unfit(f"no answer within {max_length} tokens")
    return cut


def collate(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows as one sequence without padding: input_ids, labels and weight (1, length), a token's weight being its row's.

    Several rows also give position_ids (1, length), which begin anew with each row: by that, and as there is no attention_mask,
    transformers keeps rows from looking at each other. Without them a single row takes attention's quicker causal path.
    A single row that is set against another also gives other_ids and other_labels (1, its length) and sign (1,), one of a
    training its place (1,).
    """
    import torch

    def joined(lists: Iterable[list[Any]]) -> Any:
        return torch.tensor([[value for one in lists for value in one]])

    tensors = {
        "input_ids": joined(row["ids"] for row in batch),
        # nothing is learnt at a row's first token: it would be from the end of the row before
        "labels": joined([IGNORED, *row["labels"][1:]] for row in batch),
        "weight": joined([row["weight"]] * len(row["ids"]) for row in batch),
    }
    if len(batch) > 1:
        return tensors | {"position_ids": joined(list(range(len(row["ids"]))) for row in batch)}
    [row] = batch
    if row.get("other_ids"):
        tensors |= {"other_ids": joined([row["other_ids"]]), "other_labels": joined([row["other_labels"]])}
        tensors["sign"] = torch.tensor([row["sign"]])
    if "place" in row:
        tensors["place"] = torch.tensor([row["place"]])
    return tensors


def _shown(example: Example, tokenizer: Any) -> list[Message]:
    """The conversation as the server shows it to the template."""
    messages = alternating(cleaned([*example.prompt, *example.completion], special_tokens(tokenizer).values()))
    return messages if _knows_system(tokenizer) else without_system(messages)


def _answers(messages: Sequence[Message], completion: int) -> list[int]:
    """The places of the learnt messages: the agent's among the last `completion` ones."""
    start = len(messages) - completion
    places = [start + place for place, message in enumerate(messages[start:]) if message.role == "assistant"]
    if not places:
        raise Unfit("its completion has no assistant message")
    return places


def _knows_system(tokenizer: Any) -> bool:
    """Whether the template renders a system message: some raise, some leave it out in silence."""
    asked = [Message(role="system", content=NEEDLE), Message(role="user", content="a question")]
    try:
        return NEEDLE in _template(tokenizer, asked, start=True)
    except Unfit:
        return False


def _template(tokenizer: Any, messages: Sequence[Message], *, start: bool) -> str:
    if not tokenizer.chat_template:
        raise Unfit("the model has no chat template")
    dumped = [message.model_dump() for message in messages]
    try:
        return str(tokenizer.apply_chat_template(dumped, tokenize=False, add_generation_prompt=start))
    except Exception as error:  # a template is a program from outside, in a sandbox: it may raise anything
        raise Unfit(f"the chat template fails: {' '.join(str(error).split())[:100] or type(error).__name__}") from None


def _tokens(tokenizer: Any, text: str) -> list[int]:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit("its text holds half a surrogate pair, which no tokenizer reads") from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _answered(tokenizer: Any, asked: Sequence[Message], answer: Message) -> tuple[list[int], list[int]]:
    """The ids of the prompt that was answered, and those that the model must say: the answer, and the token that ends it."""
    before = _template(tokenizer, asked, start=True)
    try:
        said, text = _said(tokenizer, before, [*asked, answer], answer.content)
    except Rewritten:  # Qwen 3's template puts an empty thought before the last answer, and before no earlier one
        said, text = _said(tokenizer, before, [*asked, answer, Message(role="user", content=NEEDLE)], answer.content)
    context = _tokens(tokenizer, before)
    if tokenizer.decode(context + said) != tokenizer.decode(_tokens(tokenizer, before + text)):
        raise Unfit("the tokenizer reads an answer by itself otherwise than within the conversation")
    return context, said


def _said(tokenizer: Any, before: str, messages: Sequence[Message], content: str) -> tuple[list[int], str]:
    """What follows the prompt `before` and is to be learnt: the answer as the template renders it (it may strip it), its end."""
    after = _template(tokenizer, messages, start=False)
    if not after.startswith(before):
        raise Unfit(MERGES)
    tail = after.removeprefix(before)
    special, tokens = special_tokens(tokenizer), _tokens(tokenizer, tail)
    end = next((place for place, token in enumerate(tokens) if token in special), None)
    if end is None:
        raise Unfit("the template ends an answer without a control token")
    answer, stop, _ = tail.partition(special[tokens[end]])
    if answer.strip() != content.strip():
        raise Rewritten("the template rewrites an answer")
    return tokens[: end + 1], answer + stop
