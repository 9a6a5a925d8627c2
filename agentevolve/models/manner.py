"""How a backend wants to be asked: what it refuses is dropped or renamed once, remembered for that model, and said once.

The names of what was refused: a parameter's own; `max_tokens` is sent as `max_completion_tokens`; `system` is put into the first
user message; `reasoning_content` means that a model's thinking is sent back with its messages.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

PARAMETERS = (
    "temperature", "seed", "parallel_tool_calls", "response_format", "structured_outputs", "reasoning_effort", "max_tokens",
)  # fmt: skip
NAMED = {  # how else refusals name them
    "response_format": r"response_format|json_schema|json schema|structured outputs?",
    "structured_outputs": r"structured_outputs?|guided_choice|structured outputs?",
}
REFUSAL = re.compile(
    r"not support|unsupported|does ?n[o']t support|unknown|unrecogni[sz]ed|unexpected|not (?:allowed|permitted|available|accept)"
    r"|extra (?:inputs|fields)|invalid (?:parameter|argument|field|value for)|only the default|is deprecated"
    r"|use ['\"`]?max_completion_tokens"
    r"|cannot be (?:used|set)|must be (?:omitted|unset|1\b)|no longer",
    re.IGNORECASE,
)
OVERFLOW = re.compile(r"context (?:length|window|size)|maximum context|too many tokens|too long", re.IGNORECASE)
SYSTEM = re.compile(r"system (?:role|message|prompt|instruction)|role ['\"`]?system|developer instruction", re.IGNORECASE)
THOUGHT = re.compile(r"reasoning_content|reasoning content|thinking (?:block|content) (?:is|must)", re.IGNORECASE)
FORM = {"max_tokens", "seed", "parallel_tool_calls", "reasoning_content"}  # how a request looks, not what is asked for
SAID = {
    "max_tokens": "is sent as max_completion_tokens",
    "system": "messages are put into the first user message",
    "reasoning_content": "is sent back, as it asks",
}


class Manner:
    """What one model's backend has refused. Thread-safe; `tell(what, why)` is called once for each of them."""

    def __init__(self, known: Iterable[str] = (), tell: Callable[[str, str], None] | None = None) -> None:
        self._known = set(known)
        self._tell = tell
        self._doubts: dict[str, int] = {}
        self._lock = threading.Lock()

    def has(self, what: str) -> bool:
        """Whether that was refused."""
        return what in self._known

    @property
    def said(self) -> str:
        """What was refused that may matter for an answer, in words: " without temperature", or nothing."""
        found = sorted(self._known - FORM)
        return f" without {', '.join(found)}" if found else ""

    def fitted(self, call: dict[str, Any]) -> dict[str, Any]:
        """The call as this backend takes it."""
        made = {name: value for name, value in call.items() if name not in self._known}
        if "max_tokens" in self._known and "max_tokens" in call:
            made["max_completion_tokens"] = call["max_tokens"]
        if "structured_outputs" in self._known and "extra_body" in made:
            made["extra_body"] = {name: value for name, value in made["extra_body"].items() if name != "structured_outputs"}
        return made

    def learn(self, call: dict[str, Any], status: int, text: str) -> bool:
        """Whether a refusal of this very request names what can be done without, or otherwise: it is from now on."""
        if status not in (400, 422) or overflows(text):
            return False
        found = self._named(call, text)
        if found is not None:
            self._add(found, text)
        return found is not None

    def doubt(self, what: str, text: str) -> None:
        """A call went through without `what` after it failed with it, unnamed: at the second time it counts as refused."""
        with self._lock:
            self._doubts[what] = self._doubts.get(what, 0) + 1
        if self._doubts[what] == 2:
            self._add(what, text)

    def _named(self, call: dict[str, Any], text: str) -> str | None:
        if THOUGHT.search(text) and any(
            "tool_calls" in message or message["role"] == "assistant" for message in call["messages"]
        ):
            return "reasoning_content"
        if not REFUSAL.search(text):
            return None
        sent = {*call, *call.get("extra_body", {})}
        for name in PARAMETERS:
            if name in sent and re.search(rf"\b(?:{NAMED.get(name, name)})\b", text, re.IGNORECASE):
                return name
        return "system" if SYSTEM.search(text) and any(one["role"] == "system" for one in call["messages"]) else None

    def _add(self, what: str, why: str) -> None:
        with self._lock:
            if what in self._known:
                return
            self._known.add(what)
        if self._tell:
            self._tell(what, why)


def how_said(what: str) -> str:
    """What is done about a refusal, in words."""
    return f"{what} {SAID.get(what, 'is not taken: it is asked without from now on')}"


def overflows(text: str) -> bool:
    """Whether a backend says that a prompt is too long for it."""
    return bool(OVERFLOW.search(text))
