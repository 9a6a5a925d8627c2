"""What alfworld calls the things of a game, and a plan that wins it, read off the game's PDDL problem."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_FACT = re.compile(r"\((\w+) ([^()]+)\)")
# what a goal asks a thing to be -> the verb, and the type of receptacle, that make it so
_TREATED = {"isclean": ("clean", "sinkbasintype"), "ishot": ("heat", "microwavetype"), "iscool": ("cool", "fridgetype")}


def names(ids: Iterable[str]) -> dict[str, str]:
    """What alfworld calls entities: "cabinet 3". Of one kind's ids in their order, the first has the highest number."""
    kinds = defaultdict(list)
    for id in sorted(ids):
        if "_bar_" in id:
            kinds[id.partition("_bar_")[0] + ("basin" if "basin" in id else "")].append(id)
    return {id: f"{kind} {len(of) - place}" for kind, of in kinds.items() for place, id in enumerate(of)}


def plan(problem: str) -> list[str]:
    """Actions that reach a problem's goal from its start: each thing asked for is fetched from where it lies.

    Empty when something that the goal needs is not to be had.
    """
    start, _, goal = problem.lower().partition("(:goal")
    facts = defaultdict(list)
    for predicate, words in _FACT.findall(start):
        facts[predicate].append(words.split())
    called = names({word for of in facts.values() for words in of for word in words})
    place, openable = dict(facts["receptacleatlocation"]), {words[0] for words in facts["openable"]}
    host = {thing: where for thing, where in sorted(facts["inreceptacle"]) if where in place}
    things, receptacles = _by_type(facts["objecttype"], host), _by_type(facts["receptacletype"], place)
    verb, tool = next((pair for state, pair in _TREATED.items() if f"({state} " in goal), ("", ""))
    to, lamp = _asked(r"receptacletype \?r", goal), _asked(r"objecttype \?ot", goal)
    wanted = things[_asked(r"objecttype \?o1?", goal)]
    wanted = sorted(wanted, key=lambda thing: host[thing] in receptacles[to])[: 2 if "?o2" in goal else 1]
    actions, here, opened = [], "", set()

    def go(where: str, closed: bool = False) -> str:
        nonlocal here
        if place[where] != here:
            actions.append(f"go to {called[where]}")
            here = place[where]
        if where in openable - opened and not closed:
            actions.append(f"open {called[where]}")
            opened.add(where)
        return called[where]

    if not wanted or (tool and not receptacles[tool]) or not (receptacles[to] or things[lamp]):
        return []
    for thing in wanted:
        actions.append(f"take {called[thing]} from {go(host[thing])}")
        if tool:
            actions.append(f"{verb} {called[thing]} with {go(receptacles[tool][0], closed=True)}")
        if to:
            actions.append(f"move {called[thing]} to {go(receptacles[to][0])}")
        else:
            go(host[things[lamp][0]])
            actions.append(f"use {called[things[lamp][0]]}")
    return actions


def _by_type(typed: list[list[str]], reached: dict[str, str]) -> defaultdict[str, list[str]]:
    """The ids that can be reached by their types, in order."""
    found = defaultdict(list)
    for id, type in sorted(typed):
        if id in reached:
            found[type].append(id)
    return found


def _asked(what: str, goal: str) -> str:
    found = re.search(rf"\({what} (\w+)\)", goal)
    return found[1] if found else ""
