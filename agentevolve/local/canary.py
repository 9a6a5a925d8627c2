"""A canary: how an adapter changes what is said at a few places of a fixed conversation, by which a server's weights are known.

Training writes down the change of log-probabilities that it made there; before a server with the adapter is used, it is asked for
the same with the adapter's scale at 0 and at 1. Both times the same quantized base answers, so that its rounding falls out. The
conversation is the house's own: nothing of what was learnt is in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentevolve.local.rows import render
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example, Message

PLACES, TOKENS = 3, 10  # places that are looked at, and the likeliest tokens at each, before and after
SILENT = 0.1  # nats a token: less says nothing about the weights
ALIKE, FACTOR, SEEN = 0.9, 1.5, 0.5  # the least cosine of both changes, how much larger one may be, the least share of tokens
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
    """After the tokens `prompt`, the log-probability of each of `tokens` is changed by `change` (nats)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    change: tuple[float, ...]


def probes(model: Any, tokenizer: Any) -> tuple[Probe, ...]:
    """Where the adapter of the PEFT model changes most of what is said, and how."""
    import torch

    ids = render(SAMPLE, tokenizer).ids
    given = torch.tensor([ids], device=model.device)
    was = model.training
    model.eval()
    with torch.no_grad():
        after = model(given, use_cache=False).logits[0].float().log_softmax(-1)
        with model.disable_adapter():
            before = model(given, use_cache=False).logits[0].float().log_softmax(-1)
    model.train(was)
    told = (after.exp() * (after - before)).sum(-1)  # (length,): the divergence at each place
    found = []
    for place in sorted(told.topk(min(PLACES, len(ids))).indices.tolist()):
        likely = [*before[place].topk(TOKENS).indices.tolist(), *after[place].topk(TOKENS).indices.tolist()]
        tokens = tuple(dict.fromkeys(likely))
        change = tuple(round(float(after[place, token] - before[place, token]), 3) for token in tokens)
        found.append(Probe(prompt=tuple(ids[: place + 1]), tokens=tokens, change=change))
    return tuple(found)


def check(known: Sequence[Probe], ask: Callable[[Sequence[int]], Mapping[int, float]], adapter: object) -> None:
    """Raise AgentevolveError, naming the adapter, if a server changes what is said otherwise than the adapter did in training.

    `ask` gives, after a prompt, how much the served adapter changes the log-probabilities of tokens, of as many as it can tell.
    """
    pairs = []
    for probe in known:
        seen = ask(probe.prompt)
        pairs += [(change, seen.get(token)) for token, change in zip(probe.tokens, probe.change, strict=True)]
    both = [(learnt, served) for learnt, served in pairs if served is not None]
    learnt, served = (math.sqrt(sum(pair[side] ** 2 for pair in both)) for side in (0, 1))
    if sum(change**2 for change, _ in pairs) <= SILENT**2 * len(pairs):
        return
    alike = sum(one * other for one, other in both) / (learnt * served or math.inf)
    if alike < ALIKE or not 1 / FACTOR < served / learnt < FACTOR or len(both) < SEEN * len(pairs):
        raise AgentevolveError(
            f"adapter {adapter}: the server answers with other weights than were trained: of {len(pairs)} likely tokens it knows"
            f" {len(both)}, and what it changes about them is alike by {alike:.2f} (at least {ALIKE})"
        )
