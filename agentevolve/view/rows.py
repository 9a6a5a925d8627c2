"""A journal's lines as rows of the read index: figures and names of an attempt, without its texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentevolve.records import SAID, SOLVED
from agentevolve.view.schema import USAGE

SEED = re.compile(r"seed-(\d{1,9})")
SHIFT = 40  # bits for a place in a journal: a terabyte
KEPT = ("evaluation ", "gate ", "taken back ", "begun ", "refused/")  # the facts whose values are kept: pages show them
PAID = ("ask/", "lost/", "spent/")  # the facts that say what something has cost

Line = Mapping[str, Any]


def number_of(name: str) -> int:
    """The number of a seed's folder; 0 for a run that is one folder."""
    found = SEED.fullmatch(name)
    return int(found[1]) if found else 0


def place(seed: int, start: int) -> int:
    """One number for a line that begins at byte `start` of the journal of the seed of that number."""
    return seed << SHIFT | start


def start_of(n: int) -> int:
    """At which byte the line of that number begins."""
    return n & ((1 << SHIFT) - 1)


def attempt_row(one: Line, seed: int, start: int, size: int) -> dict[str, Any]:
    """The row of an attempt, given as the journal has it, by the columns' names."""
    number, arm = phase_parts(one["phase"])
    lost = one["end"] == "error"
    cost = usage_of(one)
    row = {
        "n": place(seed, start),
        "size": size,
        "seed": seed,
        "id": one["id"],
        "standing": 1,
        "task": one["task"]["id"],
        "env": one["task"]["env"],
        "split": one["task"]["split"],
        "phase": one["phase"],
        "round": number,
        "arm": arm,
        "policy": json.dumps(one["policy"]),
        "outcome": "lost" if lost else "solved" if one.get("reward", 0.0) >= SOLVED else "not solved",
        "reward": one.get("reward", 0.0),
        "ended": one["end"],
        "error": reason(one.get("error", "")) if lost else "",
        "turns": len(one.get("turns", ())),
        "tokens": sum(cost[name] for name in ("prompt_tokens", "completion_tokens", "trained_tokens", "embedded_tokens")),
        "took": one.get("seconds", 0.0),
        "sample": one.get("sample", 0),
        "luck": one.get("seed", 0),
        "recalled": len(one.get("recalled", ())),
        "cut": any(looked.get("cut") for looked, _ in _looks(one)),
        "asked": json.dumps(one.get("asked", ())),
        "forgotten": bool(one.get("forgotten")),
        **cost,
    }
    return {name: plain(value) if isinstance(value, str) else value for name, value in row.items()}


def plain(text: str) -> str:
    """The text without half surrogates, which SQLite does not take."""
    return text.encode("utf-8", "replace").decode()


def phase_parts(phase: str) -> tuple[int | None, str]:
    """The round of a phase, none if it belongs to no round, and the rest of it: `acquire`, `val/memory`, `run`."""
    first, _, rest = phase.partition("/")
    return (int(first), rest) if first.isdecimal() else (None, phase)


def usage_of(one: Line) -> dict[str, Any]:
    """What the attempt cost, its turns, failed calls and looks into memory together, by the names in `Usage`."""
    parts = [*(turn.get("usage", {}) for turn in one.get("turns", ())), one.get("lookup", {}), one.get("failed", {})]
    return {name: sum(part.get(name, 0) for part in parts) for name in USAGE}


def uses(one: Line, n: int) -> list[tuple[Any, ...]]:
    """The entries that the attempt of number `n` was shown: (entry, n, turn, similarity, tokens); turn 0 is its start."""
    found = {(look["id"], turn): look for look, turn in _looks(one) if look.get("shown")}
    known = {id for id, _ in found}
    rest: dict[tuple[str, int], Line] = {(id, 0): {} for id in one.get("recalled", ()) if id not in known}
    return [(plain(id), n, turn, look.get("similarity"), look.get("tokens")) for (id, turn), look in (found | rest).items()]


def words_of(one: Line) -> str:
    """The texts of an attempt that it is searched by."""
    turns = [part for turn in one.get("turns", ()) for part in (turn["action"], turn.get("thinking", ""), turn["observation"])]
    said = [one["id"], one["task"]["id"], one.get("prompt", ""), one.get("context", ""), one.get("error", ""), *turns]
    return plain("\n".join(said))


def fact_row(line: Line, seed: int, start: int) -> tuple[Any, ...]:
    """The row of a fact: (seed, name, n, data, usage), of which the last two only where a page or the costs need them."""
    name, data = line["name"], line["data"]
    usage = data.get("usage") if name.startswith(PAID) and isinstance(data, dict) else None
    kept = json.dumps(data) if name.startswith(KEPT) else None
    return seed, plain(name), place(seed, start), kept, None if usage is None else json.dumps(usage)


def reason(error: str) -> str:
    """Why an attempt was lost, on one line, cut as `lost_reason` does."""
    said = "".join(sign if sign.isprintable() else " " for sign in error) or "no reason was given"
    return " ".join(said.split())[:SAID]


def _looks(one: Line) -> Iterator[tuple[Line, int]]:
    yield from ((look, 0) for look in one.get("looked", ()))
    for number, turn in enumerate(one.get("turns", ()), 1):
        yield from ((look, number) for look in turn.get("looked", ()))
