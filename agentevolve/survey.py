"""The survey's map (2404.14387, figure 2): its 22 cells, which operators work in each, and which methods use them.

A method says its cells in its docstring, "Cells (the survey's placement): …" where the survey's reading list puts it there and
"Cells (ours): …" where we do.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any, NamedTuple

from agentevolve.load import load_method, methods

# cell -> the operators that work in it, as module.function of this package
CELLS: dict[str, tuple[str, ...]] = {
    "task evolution, knowledge-based": ("acquire.propose", "acquire.validated", "load.manual"),
    "task evolution, knowledge-free": ("acquire.propose", "acquire.mutate", "acquire.validated"),
    "task evolution, selective": ("acquire.select", "refine.underserved"),
    "solution evolution, rationale-based": ("acquire.plans",),
    "solution evolution, interactive": ("rollout.rollout",),
    "solution evolution, self-play": ("acquire.talked_over",),
    "solution evolution, grounded": ("agent.remembered", "refine.curated", "refine.if_then"),
    "solution evolution, contrastive": ("refine.best_worst", "refine.against", "refine.divergence", "refine.guidelines"),
    "solution evolution, perturbative": ("acquire.perturbed",),
    "feedback, model": ("refine.judge", "refine.critique", "refine.censor", "refine.reflections"),
    "feedback, environment": ("rollout.rollout",),
    "filtering, metric-based": (
        "refine.keep",
        "refine.shortest",
        "refine.cap",
        "refine.best",
        "refine.verified",
        "refine.proven",
        "refine.helpful",
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
        "update.finetune",
        "update.mixed",
        "update.replayed",
        "update.by_frequency",
        "update.meta_skill",
    ),
    "in weights, regularisation": ("local.objectives.divergence", "update.merged"),
    "in weights, architecture": ("update.merged", "update.per_skill"),
    "in context, external memory": (
        "update.remember",
        "update.rewrite",
        "update.replace",
        "update.absorbed",
        "refine.tagged",
        "refine.trusted",
        "refine.recent",
    ),
    "in context, working memory": ("refine.reflect",),
    "evaluation, quantitative": ("evaluate.report", "evaluate.paired"),
    "evaluation, qualitative": ("evaluate.diagnose.assess", "refine.if_then"),
}


class Method(NamedTuple):
    """A method as its file describes it. `survey` and `ours` are its cells; `settings` the keyword parameters and defaults."""

    name: str
    about: str
    survey: tuple[str, ...]
    ours: tuple[str, ...]
    deviations: str
    settings: dict[str, Any]
    steps: str


def described(name: str) -> Method:
    """The shipped method `name`. Raises AgentevolveError on an unknown one."""
    function = load_method(name, {}).func
    text = inspect.getdoc(importlib.import_module(function.__module__)) or ""
    about, _, rest = text.partition("\n\n")
    one_line = " ".join(rest.split())
    deviations = one_line.partition("Deviations: ")[2]
    keywords = [one for one in inspect.signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY]
    return Method(
        name,
        " ".join(about.split()),
        _cells(one_line, "Cells (the survey's placement): "),
        _cells(one_line, "Cells (ours): "),
        deviations,
        {one.name: one.default for one in keywords},
        " ".join((inspect.getdoc(function) or "").split()),
    )


def all_methods() -> list[Method]:
    """Every shipped method."""
    return [described(name) for name in methods()]


def _cells(text: str, label: str) -> tuple[str, ...]:
    found = re.search(re.escape(label) + r"(.*?)\.(?: |$)", text)
    return tuple(cell.strip() for cell in found[1].split(";")) if found else ()
