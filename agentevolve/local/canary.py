"""A canary: how an adapter changes what is said at a few places of a fixed conversation, by which a server's weights are known.

Training writes down the log-probabilities there, without the adapter and with it; before a server with the adapter is used, it
is asked for the same with the adapter's scale at 0 and at 1. Both times the same quantized base answers, so that its rounding
falls out of the change. What is less likely than FLOOR counts as FLOOR: a server tells of the likeliest tokens alone. The
conversation is the house's own: nothing of what was learnt is in it.
Measured with 135 and 494 million parameters: the right weights are off by 0.02 to 0.12 of what they change, and by up to 0.25
nats where they change little; others by half of it and more (such as half, or one and a half times, of the right ones).
Training may hold the base in half precision; its canary is taken in float32, as engines compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentevolve.local.rows import render
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example, Message

Ask = Callable[[Sequence[int], Sequence[int], float], Mapping[int, float]]  # prompt, tokens, scale
PLACES, TOKENS = 3, 10  # places that are looked at, and the likeliest tokens at each, before and after
SILENT = 0.4  # nats a token: less says nothing about the weights
OFF, NOISE = 0.3, 0.25  # by which share of what was learnt, and by how many nats a token more, the served change may be off
FLOOR = -8.0  # nats
# a conversation of the kind that the agent has
SAMPLE = Example(
    id="sample",
    prompt=(Message(role="system", content="You are playing a text game."), Message(role="user", content="You are in a room.")),
    completion=(
        Message(role="assistant", content="go north"),
        Message(role="user", content="You see a coin."),
        Message(role="assistant", content="take coin"),
    ),
)


class Probe(BaseModel):
    """After the tokens `prompt`: the log-probability (nats) of each of `tokens`, without the adapter and with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    without: tuple[float, ...]
    within: tuple[float, ...]

    @property
    def change(self) -> list[float]:
        """What the adapter changes about each of the tokens."""
        return [_floored(after) - _floored(before) for before, after in zip(self.without, self.within, strict=True)]


def probes(model: Any, tokenizer: Any) -> tuple[Probe, ...]:
    """Where the adapter of the PEFT model changes most of what is said, and how."""
    import torch

    ids = render(SAMPLE, tokenizer).ids
    given = torch.tensor([ids], device=model.device)
    was = model.training
    model.eval()
    with torch.no_grad(), _precisely(model):
        after = model(given, use_cache=False).logits[0].float().log_softmax(-1)
        with model.disable_adapter():
            before = model(given, use_cache=False).logits[0].float().log_softmax(-1)
    model.train(was)
    told = (after.exp() * (after - before)).sum(-1)  # (length,): the divergence at each place
    found = []
    for place in sorted(told.topk(min(PLACES, len(ids))).indices.tolist()):
        likely = [*before[place].topk(TOKENS).indices.tolist(), *after[place].topk(TOKENS).indices.tolist()]
        tokens = tuple(dict.fromkeys(likely))
        without, within = (tuple(round(float(one[place, token]), 3) for token in tokens) for one in (before, after))
        found.append(Probe(prompt=tuple(ids[: place + 1]), tokens=tokens, without=without, within=within))
    return tuple(found)


@contextmanager
def _precisely(model: Any) -> Iterator[None]:
    """Meanwhile each part of the model that is held in half of float32 computes in float32, one after the other.

    Engines do, and where a model is torn between many tokens half the digits give another answer: with 494 million parameters,
    at one of the places, by 0.6 nats and more, which was most of what an adapter changed.
    """
    import torch

    def widened(part: Any, _: Any) -> None:
        for weight in part.parameters(recurse=False):
            if weight.dtype in (torch.bfloat16, torch.float16):
                narrow[weight] = weight.dtype
                weight.data = weight.data.float()

    def narrowed(part: Any, *_: Any) -> None:
        for weight in part.parameters(recurse=False):
            if kept := narrow.pop(weight, None):
                weight.data = weight.data.to(kept)  # the very same: nothing was added to them

    narrow: dict[Any, Any] = {}
    hooks: list[Any] = []
    for part in model.modules():
        if list(part.parameters(recurse=False)):
            hooks += [part.register_forward_pre_hook(widened), part.register_forward_hook(narrowed, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check(known: Sequence[Probe], ask: Ask, adapter: object) -> None:
    """Raise AgentevolveError, naming the adapter, if a server changes what is said otherwise than the adapter did in training.

    `ask` gives the log-probabilities of tokens after a prompt, with the served adapter at a scale; of unlikely ones it need not.
    """
    learnt: list[float] = []
    served: list[float] = []
    if not known:
        return
    for probe in known:
        without, within = (ask(probe.prompt, probe.tokens, scale) for scale in (0.0, 1.0))
        learnt += probe.change
        served += [_floored(within.get(token, FLOOR)) - _floored(without.get(token, FLOOR)) for token in probe.tokens]
    each = math.sqrt(len(learnt))
    size, off = math.hypot(*learnt) / each, math.dist(learnt, served) / each
    if size > SILENT and off > OFF * size + NOISE:
        raise AgentevolveError(
            f"adapter {adapter}: the server answers with other weights than were trained: they should change the log-probability"
            f" of likely tokens by {size:.2f} on average (root mean square), and what they change is off by {off:.2f}"
        )


def _floored(chance: float) -> float:
    return max(chance, FLOOR)
