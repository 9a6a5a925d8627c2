"""The survey's map (2404.14387, figure 2): its 22 cells, which operators work in each, and which methods use them.

A method says its cells in its docstring, "Cells (the survey's placement): …" where the survey's reading list puts it there and
"Cells (ours): …" where we do. METHODS.md is made from it: python -m agentevolve.survey > METHODS.md
"""

from __future__ import annotations

import importlib
import inspect
import re
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from agentevolve.act.rollout import rollout
from agentevolve.load import load_method, methods
from agentevolve.local.adapter import LoraSettings

# cell -> the operators that work in it, as module.function of this package
CELLS: dict[str, tuple[str, ...]] = {
    "task evolution, knowledge-based": ("acquire.propose", "acquire.validated", "load.manual"),
    "task evolution, knowledge-free": ("acquire.propose", "acquire.mutate", "acquire.validated"),
    "task evolution, selective": ("acquire.select", "refine.underserved"),
    "solution evolution, rationale-based": ("acquire.plans",),
    "solution evolution, interactive": ("act.rollout",),
    "solution evolution, self-play": ("acquire.talked_over",),
    "solution evolution, grounded": ("act.recall.at_start", "refine.curated", "refine.if_then"),
    "solution evolution, contrastive": ("refine.best_worst", "refine.against", "refine.divergence", "refine.guidelines"),
    "solution evolution, perturbative": ("acquire.perturbed",),
    "feedback, model": ("refine.judge", "refine.critique", "refine.censor", "refine.reflections"),
    "feedback, environment": ("act.rollout",),
    "filtering, metric-based": (
        "refine.keep",
        "refine.shortest",
        "refine.cap",
        "refine.best",
        "refine.verified",
        "refine.proven",
        "refine.helpful",
        "refine.advantages",
    ),
    "filtering, metric-free": ("refine.agreement", "refine.settled", "refine.distinct", "refine.varied", "refine.unheard"),
    "correcting, critique-based": (
        "refine.reflect",
        "refine.critique",
        "refine.insights",
        "refine.abstracted",
        "refine.corrected",
        "refine.guidelines",
        "refine.curated",
        "refine.collective",
        "refine.added",
    ),
    "correcting, critique-free": ("acquire.plans",),
    "in weights, replay": (
        "update.examples",
        "update.recalling",
        "update.finetune",
        "update.mixed",
        "update.replayed",
        "update.by_frequency",
        "update.meta_skill",
    ),
    "in weights, regularisation": ("local.objectives.divergence", "update.merged"),
    "in weights, architecture": ("update.merged", "update.per_skill"),
    "in context, external memory": (
        "update.sound",
        "update.remember",
        "update.rewrite",
        "update.replace",
        "update.absorbed",
        "refine.tagged",
        "refine.trusted",
        "refine.recent",
    ),
    "in context, working memory": ("refine.reflect",),
    "evaluation, quantitative": ("evaluate.report", "evaluate.paired", "evaluate.standings"),
    "evaluation, qualitative": ("evaluate.diagnose.assess", "refine.if_then"),
}


class Method(NamedTuple):
    """A method as its file describes it. `survey` and `ours` are its cells; `settings` the keyword parameters and defaults.

    `operators` are those that it is composed of, also by way of other methods, as room.function; `asks` are those of them that
    ask a model for text, `trains` says whether it fine-tunes, `taught` whether it is shown solutions that the worlds give.
    """

    name: str
    about: str
    survey: tuple[str, ...]
    ours: tuple[str, ...]
    deviations: str
    settings: dict[str, Any]
    steps: str
    operators: tuple[str, ...]
    asks: tuple[str, ...]
    trains: bool
    taught: bool

    @property
    def cost(self) -> str:
        """What a round costs besides its attempts, in words."""
        asked = f"asks a model in {', '.join(name.partition('.')[2] for name in self.asks)}" if self.asks else "asks for no text"
        trained = "fine-tunes" if self.trains else "trains nothing"
        return f"{asked}; {trained}" + ("; sees the worlds' solutions" if self.taught else "")


def described(name: str) -> Method:
    """The shipped method `name`. Raises AgentevolveError on an unknown one."""
    function = load_method(name, {}).func
    text = inspect.getdoc(importlib.import_module(function.__module__)) or ""
    about, _, rest = text.partition("\n\n")
    one_line = " ".join(rest.split())
    keywords = [one for one in inspect.signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY]
    found = _operators(function)
    return Method(
        name,
        " ".join(about.split()),
        _cells(one_line, "Cells (the survey's placement): "),
        _cells(one_line, "Cells (ours): "),
        one_line.partition("Deviations: ")[2],
        {one.name: one.default for one in keywords},
        " ".join((inspect.getdoc(function) or "").split()),
        tuple(sorted(found)),
        tuple(sorted([operator for operator, one in found.items() if _asks(one)] + _asking(function))),
        any(isinstance(one.default, LoraSettings) or one.name == "feeds" for one in keywords),
        any(one.name in ("expert", "teacher", "primer") for one in keywords) or "acquire.plans" in found,
    )


def all_methods() -> list[Method]:
    """Every shipped method."""
    return [described(name) for name in methods()]


def markdown() -> str:
    """METHODS.md: the survey's cells with their operators and methods, then every method with its settings and deviations."""
    found = all_methods()
    lines = [
        "# The survey as code",
        "",
        "Made from the code by `python -m agentevolve.survey`. Cells are those of *A Survey on Self-Evolution of Large Language",
        "Models* (arXiv 2404.14387); methods in a cell are there by the survey's own reading list, those in brackets by ours.",
        "",
        "| cell | operators | methods |",
        "| --- | --- | --- |",
    ]
    for cell, operators in CELLS.items():
        names = [one.name for one in found if cell in one.survey] + [f"({one.name})" for one in found if cell in one.ours]
        lines.append(f"| {cell} | {', '.join(f'`{name}`' for name in operators)} | {', '.join(names)} |")
    for one in found:
        lines += ["", f"## {one.name}", "", one.about, "", f"- **A round:** {one.steps}", f"- **Cost:** {one.cost}."]
        lines += [f"- **Operators:** {', '.join(f'`{name}`' for name in one.operators)}"]
        cells = [*one.survey, *(f"({cell})" for cell in one.ours)]
        lines += [f"- **Cells:** {'; '.join(cells)}", f"- **Deviations:** {one.deviations}"]
        lines += [f"- **Settings:** {', '.join(f'`{name}={_shown(value)}`' for name, value in one.settings.items())}"]
    return "\n".join(lines) + "\n"


def _operators(method: Any) -> dict[str, FunctionType]:
    """The operators that a method's function or those beside it in its file use, by room.function."""
    found: dict[str, FunctionType] = {}
    for one in vars(inspect.getmodule(method)).values():
        if (
            not isinstance(one, FunctionType)
            or one.__module__ == method.__module__
            or not one.__module__.startswith("agentevolve.")
        ):
            continue
        room = one.__module__.split(".")[1]
        if room in ("acquire", "refine", "update", "evaluate") or one is rollout:
            found[f"{room}.{one.__name__}"] = one
        elif room == "methods":
            found |= _operators(one)
    return found


def _asking(method: Any) -> list[str]:
    """The method itself if its file asks a model."""
    return [f"methods.{method.__name__}"] if "ask" in method.__globals__ else []


def _asks(function: FunctionType) -> bool:
    """Whether an operator asks a model for text, itself or by way of others of the house."""
    todo, seen = [function], {function}
    while todo:
        one = todo.pop()
        names = _names(one.__code__)
        if "ask" in names:
            return True
        called = {found for name in names if isinstance(found := one.__globals__.get(name), FunctionType)}
        todo += called - seen
        seen |= called
    return False


def _names(code: CodeType) -> set[str]:
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _shown(value: Any) -> str:
    if isinstance(value, LoraSettings):
        changed = {name: held for name, held in value if held != LoraSettings.model_fields[name].default}
        return ", ".join(f"{name}: {held}" for name, held in changed.items()) or "as LoraSettings has it"
    return str(dict(value)) if hasattr(value, "keys") else str(value)


def _cells(text: str, label: str) -> tuple[str, ...]:
    found = re.search(re.escape(label) + r"(.*?)\.(?: |$)", text)
    return tuple(cell.strip() for cell in found[1].split(";")) if found else ()


if __name__ == "__main__":
    print(markdown(), end="")
