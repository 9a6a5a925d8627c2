"""Tables for the command line. Text from outside is shown as text: no markup, no control characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentevolve.evaluate.table import percent, plain
from agentevolve.load import extra

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from agentevolve.load import TaskSet
    from agentevolve.loop.course import Stage
    from agentevolve.loop.forecast import Forecast, Spending
    from agentevolve.loop.policies import Learnt, Unlike
    from agentevolve.memory.audit import Finding
    from agentevolve.memory.curate import Curated
    from agentevolve.memory.forget import Forgotten
    from agentevolve.memory.lineage import Change, Lineage, Thought
    from agentevolve.records import Entry
    from agentevolve.survey import Method


def task_sets(sets: Sequence[TaskSet], *, detailed: bool) -> list[Table | Text]:
    """The task sets, one a row; with `detailed` also each one's settings and splits."""
    rows = [
        (
            one.name,
            _sizes(one),
            _limit(one),
            _actions(one),
            _measured(one, "random"),
            _measured(one, "oracle"),
            extra(one.env) or "–",
            one.licence,
        )
        for one in sets
    ]
    made: list[Table | Text] = [
        _table(("task set", "train/val/test", "turns", "actions", "random % (n)", "oracle % (n)", "extra", "licence"), rows)
    ]
    for one in sets if detailed else ():
        facts: list[tuple[str, object]] = [("asked", one.about), ("environment", one.env), *one.settings.items()]
        facts += [(split, seeds.seeds) for split, seeds in one.splits.items()]
        facts += [("oracle misses", f"{len(ids)} tasks: {reason}") for reason, ids in one.misses.items()]
        measured = [
            (
                f"{found.arm} on {found.split}",
                f"{found.success:.2f} [{found.low:.2f}, {found.high:.2f}], n={found.n}: {found.command}",
            )
            for found in one.measured
        ]
        made.append(_table(("setting", "value"), [(str(name), str(value)) for name, value in [*facts, *measured]]))
    return made


def forecast(found: Forecast) -> list[Table | Text]:
    """A row a method: expected attempts, tokens by phase, dollars and minutes; then their sum."""
    total = found.total()
    rows = [_spent(name, phases) for name, phases in found.methods.items()]
    rows += [_spent("total", total)] if len(rows) > 1 else []
    names = ("method", "attempts", *(f"{phase}, tokens" for phase in total), "tokens", "USD", "minutes")
    return [_table(names, rows)]


def _spent(name: str, phases: dict[str, Spending]) -> tuple[str, ...]:
    from agentevolve.loop.forecast import Spending

    total = sum(phases.values(), Spending())
    tokens = [f"{one.tokens:,.0f}" for one in phases.values()]
    return name, f"{total.attempts:,.0f}", *tokens, f"{total.tokens:,.0f}", f"{total.usd:.2f}", f"{total.seconds / 60:,.0f}"


def models(rows: Sequence[dict[str, Any]]) -> list[Table | Text]:
    """The local models, with what was measured of them here, and how to name another."""
    listed = [_model(row) for row in rows]
    others = [
        ("local/PATH", "a .gguf file, or a transformers folder with one"),
        ("random, oracle", "the floor and the ceiling: no model"),
        (
            "openai/…, anthropic/…, ollama_chat/…, hosted_vllm/…",
            "any LiteLLM name; its key from the environment, --api-base for a server",
        ),
    ]
    names = ("--model", "licence", "file", "here", "memory", "tokens/s read", "written")
    return [_table(names, listed), _table(("--model", "what it is"), others)]


def _model(row: dict[str, Any]) -> tuple[str, ...]:
    speed = row["speed"]
    figures = (f"{speed['memory'] / 1e9:.1f} GB", f"{speed['read']:.0f}", f"{speed['written']:.0f}") if speed else ("–",) * 3
    return row["model"], row["licence"], f"{row['bytes'] / 1e6:,.0f} MB", "yes" if row["cached"] else "fetched", *figures


def policies(found: Sequence[Learnt]) -> list[Table | Text]:
    """What a run has learnt in weights, an adapter a row."""
    rows = [
        (
            one.name,
            one.base[:12],
            one.objective,
            str(one.rows),
            str(len(one.trajectories)),
            f"{one.loss_first:.2f} → {one.loss_last:.2f}",
            "\n".join(verdict.said for verdict in one.verdicts) or "–",
            ", ".join(one.children) or "–",
        )
        for one in found
    ]
    return [_table(("adapter", "base", "objective", "rows", "attempts", "loss", "gate", "children"), rows)]


def policy(one: Learnt) -> list[Table | Text]:
    """One adapter whole."""
    values = one.model_dump() | {"verdicts": [verdict.said for verdict in one.verdicts]}
    rows = [
        (name, "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)) for name, value in values.items()
    ]
    return [_table((one.name, ""), [(name, _clean(value or "–")) for name, value in rows])]


def course(stages: Sequence[Stage], title: str) -> list[Table | Text]:
    """What was in place after each round, a round a row; tokens are those of all attempts, for each that was solved."""
    rows = [
        (
            str(one.round),
            ", ".join(dict.fromkeys(one.arms)),
            f"{one.n:,}",
            percent(one),
            str(one.different),
            f"{one.inadmissible:.0%}",
            f"{one.tokens:,.0f}" if one.tokens else "–",
        )
        for one in stages
    ]
    names = (title, "", "n", "success %", "different actions", "inadmissible", "tokens a solved")
    return [_table(names, rows)]


def unlike(found: Unlike) -> list[Table | Text]:
    """Two adapters beside each other."""
    rows = [("base", *(base[:12] for base in found.base)), *((name, *both) for name, both in found.settings.items())]
    alone, both, others = found.rows
    rows += [("rows of this one alone", str(alone), str(others)), ("rows of both", str(both), str(both))]
    rows += [("attempts of this one alone", *("\n".join(map(_clean, ids)) or "–" for ids in found.trajectories))]
    rows += [("loss at the end", *(f"{loss:.2f}" for loss in found.loss_last))]
    rows += [("gate", *("\n".join(said) or "–" for said in found.verdicts))]
    if like := found.likeness:
        rows += [("size of the change", f"{like.size:.2f}", f"{like.other_size:.2f}")]
        rows += [("apart, cosine", f"{like.apart:.2f}", f"{like.cosine:.2f}")]
    return [_table(("", *found.names), rows)]


def methods(found: Sequence[Method]) -> list[Table | Text]:
    """The methods, one a row; cells that the survey itself gives to a method come before ours, which stand in brackets."""
    rows = [(one.name, "; ".join([*one.survey, *(f"({cell})" for cell in one.ours)]), one.about) for one in found]
    return [_table(("method", "cells", "what it does"), rows)]


def method(one: Method) -> list[Table | Text]:
    """One method whole."""
    rows = [("what it does", one.about), ("a round", one.steps), ("cells (the survey's)", "; ".join(one.survey) or "–")]
    rows += [("cost", one.cost), ("operators", ", ".join(one.operators))]
    rows += [("cells (ours)", "; ".join(one.ours) or "–"), ("deviations", one.deviations)]
    rows += [(f"settings.{name}", _clean(str(value))) for name, value in one.settings.items()]
    return [_table((one.name, ""), rows)]


def entries(found: Sequence[Entry]) -> list[Table | Text]:
    """Entries, one a row."""
    rows = [(one.id, one.kind, str(one.round), f"{one.reward:.2f}", plain(one.text)) for one in found]
    return [_table(("id", "kind", "round", "reward", "text"), rows)]


def entry(one: Entry, beside: Mapping[str, str]) -> list[Table | Text]:
    """One entry whole, and what is known beside it."""
    told = [*one, *beside.items()]
    rows = [(name, "\n".join(map(_clean, value)) if isinstance(value, tuple) else _clean(str(value))) for name, value in told]
    return [_table(("field", "value"), rows)]


def found(hits: Sequence[tuple[Entry, float]]) -> list[Table | Text]:
    """Search results, nearest first."""
    rows = [(f"{similarity:.3f}", one.id, one.kind, plain(one.text)) for one, similarity in hits]
    return [_table(("similarity", "id", "kind", "text"), rows)]


def thoughts(found: Sequence[Thought]) -> list[Table | Text]:
    """What an attempt's look into memory thought of."""
    rows = []
    for one in found:
        item = one.looked
        state = f"shown, {item.cut} turns left out" if item.cut else "shown" if item.shown else item.why
        near = "–" if item.similarity is None else f"{item.similarity:.3f}"
        rows.append((state, near, f"{item.tokens:,}" if item.shown else "–", one.kind, item.id, plain(one.text)))
    return [_table(("what became of it", "similarity", "tokens", "kind", "id", "text"), rows)]


def lineage(one: Lineage) -> list[Table | Text]:
    """Where an entry came from, and what became of it."""
    facts = [("id", one.id), ("round", str(one.round))]
    facts += [("retired", f"round {one.retired}: {one.why}")] if one.retired is not None else []
    facts += [("sources", "\n".join(one.sources) or "–"), ("adapters that learnt from them", ", ".join(one.adapters) or "none")]
    counted = [use for use in one.uses if not use.lost]
    facts += [("uses", f"{len(one.uses)}, {sum(use.solved for use in counted)} of {len(counted)} solved")]
    rows = [
        (
            use.trajectory,
            use.at,
            "–" if use.similarity is None else f"{use.similarity:.3f}",
            f"{use.tokens:,}",
            "lost" if use.lost else "solved" if use.solved else "not solved",
        )
        for use in one.uses
    ]
    made = [_table(("entry", ""), [(name, _clean(value)) for name, value in facts])]
    return [*made, _table(("shown to", "at", "similarity", "tokens", "outcome"), rows)] if rows else [*made]


def changes(found: Sequence[Change]) -> list[Table | Text]:
    """What came and went, one a row."""
    rows = [(one.what, str(one.round), one.kind, one.id, _clean(one.why), plain(one.text)) for one in found]
    return [_table(("what", "round", "kind", "id", "why", "text"), rows)]


def findings(found: Sequence[Finding]) -> list[Table | Text]:
    """What is odd about entries, one a row."""
    rows = [(one.id, one.kind, _clean(one.what), plain(one.where)) for one in found]
    return [_table(("id", "kind", "what is odd", "where"), rows)]


def curated(found: Sequence[Curated]) -> list[Table | Text]:
    """What became of entries, one a row."""
    return [
        _table(("id", "what", "why", "now part of"), [(one.id, one.what, _clean(one.why), one.merged or "–") for one in found])
    ]


def forgotten(found: Sequence[Forgotten]) -> list[Table | Text]:
    """What was forgotten, a run a row."""
    rows = [
        (
            one.run,
            f"{len(one.attempts):,}",
            f"{len(one.entries):,}",
            f"{one.answers:,}",
            f"{one.rows:,}",
            ", ".join(one.adapters) or "none",
        )
        for one in found
    ]
    names = ("run", "attempts", "entries", "answers", "training rows", "adapters that learnt from it")
    return [_table(names, rows)]


def stats(values: dict[str, Any]) -> list[Table | Text]:
    """A memory in numbers."""
    return [_table(("what", "value"), [(name, _clean(str(value))) for name, value in values.items()])]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def _clean(text: str) -> str:
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


def _sizes(one: TaskSet) -> str:
    return "/".join(str(seeds.seeds[1] - seeds.seeds[0]) for seeds in one.splits.values())


def _limit(one: TaskSet) -> str:
    return str(one.settings.get("limit", "–"))


def _actions(one: TaskSet) -> str:
    shown = [f"{found.actions:.0f}" if found.actions else "free text" for found in one.measured if found.arm == "random"]
    return shown[0] if shown else "–"


def _measured(one: TaskSet, arm: str) -> str:
    shown = [
        f"{100 * found.success:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}] ({found.n})"
        for found in one.measured
        if found.arm == arm
    ]
    return shown[0] if shown else "–"
