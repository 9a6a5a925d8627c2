"""A small run that has all that the inspector shows; and what its pages may be made of."""

from __future__ import annotations

import unicodedata
from html.parser import HTMLParser
from pathlib import Path

from worlds import learner, make_tasks, new_run, use_model

from agentevolve.act.rollout import rollout
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, Recall
from agentevolve.records import Entry
from agentevolve.refine import demos
from agentevolve.update import memory_of, remember

TAGS = {"html", "head", "meta", "title", "link", "script", "style", "body", "a", "header", "nav", "main", "h1", "h2", "h3", "p"}
TAGS |= {"span", "div", "section", "article", "aside", "footer", "form", "label", "input", "select", "option", "button", "table"}
TAGS |= {
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "ul",
    "li",
    "dl",
    "dt",
    "dd",
    "details",
    "summary",
    "figure",
    "img",
    "time",
}
TAGS |= {"fieldset", "legend", "textarea", "bdi", "code", "strong", "ins", "del", "dialog", "kbd"}
ODD = ("Cc", "Cf", "Cs", "Zl")
LINKS = ("/", "#", "data:,", "data:image/svg")
WITHIN = {"mean": 0.5, "low": 0.1, "high": 0.8, "n": 3, "pairs": 3, "lost": 0}


def lived(place: Path, says: str = "") -> Path:
    """A run with demos, an insight, lost attempts, two arms measured, a gate's verdict with a guard and an alarm, an answer."""
    run = new_run(place, workers=1)
    won = rollout(Policy(model="oracle"), make_tasks(3, length=2, name=f"Corridor{says}"), run, phase="1/acquire")
    policy = remember(Policy(model="random", recall=Recall(nearest={"demo": 2})), demos(won, 1), run)
    memory_of(run).add([Entry(id="rule", kind="insight", key="lamp", text=f"Go to the lamp.{says}", env="e", round=1)])
    rollout(Policy(model="oracle"), make_tasks(2, "Broken"), run, phase="1/broken")
    use_model(run, ScriptedModel(learner), policy)
    ids, held = {}, make_tasks(3, split="val", name=f"Corridor{says}")
    for arm, one in (("base", Policy(model="oracle")), ("memory", policy)):
        made = rollout(one, held, run, phase=f"1/val/{arm}", luck="val", measuring=True)
        ids[arm] = [attempt.id for attempt in made]
    run.once("evaluation 1/val", lambda: ids)
    verdict = {"promoted": "memory", "holder": "base", "level": 0.95, "tasks": 3, "of": 3, "differences": {"memory": WITHIN}}
    verdict |= {"guards": {"memory": {"coin": WITHIN | {"forgets": True}}}, "alarms": {"memory": [f"2 different actions{says}"]}}
    run.once("gate 1/val", lambda: verdict)
    run.once("ask/reflect/1", lambda: {"text": "x", "usage": {"calls": 1, "prompt_tokens": 5}})
    run.close()
    return place


def addresses(name: str) -> list[str]:
    """The address of every page of such a run, with the filters that it has something for."""
    base, task = f"/runs/{name}", "corridor/val/100"
    attempt, other = f"1/val/memory/{task}/0", f"1/val/base/{task}/0"
    return [
        "/",
        base,
        f"{base}/attempts",
        f"{base}/attempts?outcome=lost",
        f"{base}/attempts?text=lamp&sort=turns&at_least=1&round=1",
        f"{base}/attempt?id={attempt}&turn=1",
        f"{base}/compare?a={attempt}&b={other}",
        f"{base}/memory",
        f"{base}/memory?text=lamp&kind=demo&sort=gain",
        f"{base}/memory?near=the lamp is left",
        f"{base}/map",
        f"{base}/map?kind=demo&colour=round&x=300&y=200",
        f"{base}/entry?id=rule",
        f"{base}/entry?id=demo/1/acquire/corridor/train/0/0",
        f"{base}/policies",
    ]


def twin(address: str) -> str:
    """The address of a page's JSON."""
    path, sign, query = address.partition("?")
    return ("/index" if path == "/" else path) + f".json{sign}{query}"


class Page(HTMLParser):
    """A page taken apart; `wrong` is what of it could do more than be read, or is not to be seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.wrong = [f"U+{ord(sign):04X}" for sign in text if sign != "\n" and unicodedata.category(sign) in ODD]
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.wrong += [tag] if tag not in TAGS else []
        for name, value in attributes:
            if name.startswith("on") or name in ("style", "srcdoc", "formaction"):
                self.wrong.append(f"{tag} {name}")
            if name in ("href", "src", "action", "data-hx-get") and not (value or "").startswith(LINKS):
                self.wrong.append(f"{tag} {name}={value}")
        if tag == "script" and not (dict(attributes).get("src") or "").startswith("/static/"):
            self.wrong.append("a script of its own")
