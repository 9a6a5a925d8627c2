"""ALFWorld-format games by seed, made offline from what the alfworld package ships.

A room is one of ALFRED's floor plans: its kinds of things, and its receptacles where ALFRED's agents stood to reach them (a few
that nobody measured, such as stove burners, get places of their own). What lies in them is drawn by the seed, as far as the
package says that a receptacle may hold it. Goals follow the rules by which ALFRED drew its own, less what nobody would ask for.
"""

from __future__ import annotations

import functools
import json
import random
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

# kind of task -> what the thing must allow and the receptacle that does it to the thing
KINDS = {
    "pick_and_place_simple": ("", ""),
    "look_at_obj_in_light": ("", ""),
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
    "pick_two_obj_and_place": ("", ""),
}
# the numbers of the floor plans within each kind of room: the package's training rooms are 7–30, its test rooms 1–6
ROOMS = {"train": range(11, 31), "val": range(7, 11), "test": range(1, 7)}
_FIRST = {"Kitchen": 0, "LivingRoom": 200, "Bedroom": 300, "Bathroom": 400}
_SINGLE = {"CoffeeMachine", "HandTowelHolder", "StoveBurner", "ToiletPaperHanger", "TowelHolder"}  # hold one thing
_LAMP = "DeskLamp"  # the floor lamps stand in no receptacle, where the engine cannot switch them on
_LAMP_STANDS = ("CoffeeTable", "Desk", "DiningTable", "Dresser", "Shelf", "SideTable")
_WASHABLE = {"Cloth", "DishSponge", "HandTowel", "SoapBar"}  # nobody throws them away
_MANGLED = {"-": "_minus_", "|": "_bar_", "+": "_plus_", ".": "_dot_"}


class Receptacle(NamedTuple):
    """Something that holds things: its id and type in ALFRED, and the place from which it is reached."""

    id: str
    type: str
    place: str


class Room(NamedTuple):
    """A floor plan: its receptacles, the types of things that lie about in it, and whether a lamp belongs to it."""

    receptacles: tuple[Receptacle, ...]
    things: tuple[str, ...]
    lamp: bool


def game(split: str, seed: int) -> dict[str, str]:
    """The game of a seed, as alfworld's game files hold it: domain, problem and the grammar of its texts."""
    dice = random.Random(f"{split} {seed}")
    kind = dice.choice(list(KINDS))
    places = [_FIRST[place] + n for place in sorted(_package("constants").GOALS_VALID[kind]) for n in ROOMS[split]]
    number = dice.choice([number for number in places if goals_of(kind, number)])
    room, goals = floor_plan(number), goals_of(kind, number)
    where = dice.choice(sorted({where for _, where in goals}))
    thing = dice.choice([thing for thing, there in goals if there == where])
    said = _package("goal_library").gdict[kind]
    words = {"obj": thing, "recep": where, "toggle": where, "mrecep": ""}
    asked = dice.choice(said["templates"]).format(**{word: name.lower() for word, name in words.items()})
    problem = _problem(room, _lying(room, kind, thing, where, dice), said["pddl"].format(**words).replace("#", "-"))
    domain, grammar = _logic()
    return {"pddl_domain": domain, "grammar": grammar.replace("UNKNOWN GOAL", asked), "pddl_problem": problem}


@functools.cache
def goals_of(kind: str, number: int) -> tuple[tuple[str, str], ...]:
    """What a task of this kind may ask for in floor plan `number`: pairs of a thing and where it goes (or the lamp)."""
    here, constants = floor_plan(number), _package("constants")
    if kind == "look_at_obj_in_light":
        return tuple((thing, _LAMP) for thing in here.things if here.lamp)
    needs, by = KINDS[kind]
    types = {receptacle.type for receptacle in here.receptacles}
    return tuple(
        (thing, where)
        for where in sorted(types - {by} if not by or by in types else ())
        for thing in here.things
        if _may_hold(where, thing)
        and (not needs or thing in constants.VAL_ACTION_OBJECTS[needs])
        and not _odd(kind, thing, where)
        and any(_may_hold(other, thing) for other in types - {where, by})
    )


def _odd(kind: str, thing: str, where: str) -> bool:
    """Whether nobody would ask for it, though the thing may lie there."""
    treated = bool(KINDS[kind][1])
    return (
        (where in ("GarbageCan", "Toilet") and treated)
        or (where == "GarbageCan" and thing in _WASHABLE)
        or (where == "Microwave" and thing == "Glassbottle")
        or (where in _SINGLE and kind == "pick_two_obj_and_place")
    )


@functools.cache
def floor_plan(number: int) -> Room:
    """Floor plan `number` of the package."""
    constants, plan = _package("constants"), _folder() / "gen" / "layouts" / f"FloorPlan{number}"
    types = set(json.loads(Path(f"{plan}-objects.json").read_text("utf-8")))
    reached = json.loads(Path(f"{plan}-openable.json").read_text("utf-8"))
    receptacles = [Receptacle(id, _type(id), _place(*reached[id])) for id in sorted(reached)]
    fixed = (types & constants.RECEPTACLES) - set(constants.MOVABLE_RECEPTACLES)
    for missing in sorted(fixed - {one.type for one in receptacles}):
        for copy in range(4 if missing == "StoveBurner" else 1):
            id = f"{missing}|+00.0{copy}|+00.90|+00.00"
            receptacles.append(Receptacle(id, missing, f"loc|{90 + len(receptacles)}|0|0|30"))
    there = {one.type for one in receptacles}
    things = sorted(thing for thing in types - fixed if any(_may_hold(where, thing) for where in there))
    return Room(tuple(receptacles), tuple(things), _LAMP in types and bool(there & set(_LAMP_STANDS)))


def _type(id: str) -> str:
    return id.partition("|")[0] + ("Basin" if id.endswith("Basin") else "")


def _place(x: float, z: float, turned: float, tilt: float) -> str:
    return f"loc|{round(x * 4)}|{round(z * 4)}|{round(turned) // 90}|{round(tilt)}"


def _may_hold(where: str, thing: str) -> bool:
    return thing in _package("constants").VAL_RECEPTACLE_OBJECTS.get(where, ())


def _lying(room: Room, kind: str, thing: str, where: str, dice: random.Random) -> list[tuple[str, str, Receptacle]]:
    """What lies in which receptacle: (id, type, receptacle). What is asked for never lies where it is to go or is treated."""
    asked = (2 if kind == "pick_two_obj_and_place" else 1) + dice.randint(0, 1)
    copies = {other: asked if other == thing else dice.randint(0, 2) for other in room.things}
    full, lying = set(), []
    for type in sorted(copies, key=lambda type: type != thing):  # what is asked for first: it must find a place
        numbers = dice.sample(range(100), copies[type])
        for number in numbers:
            closed = {where, KINDS[kind][1]} if type == thing else ()
            free = [one for one in room.receptacles if _may_hold(one.type, type) and one.type not in closed and one not in full]
            if free:
                host = dice.choice(free)
                full |= {host} if host.type in _SINGLE else set()
                lying.append((f"{type}|+00.{number:02}|+00.90|+00.00", type, host))
    if room.lamp:
        stand = dice.choice([one for one in room.receptacles if one.type in _LAMP_STANDS])
        lying.append((f"{_LAMP}|+00.00|+00.90|+00.00", _LAMP, stand))
    return lying


def _problem(room: Room, lying: list[tuple[str, str, Receptacle]], goal: str) -> str:
    """The PDDL problem. The domain names some types in its actions, so they are declared in every room."""
    constants, middle = _package("constants"), "loc|0|0|0|0"
    kinds = {one.type for one in room.receptacles}
    types = {type for _, type, _ in lying}
    objects = ["agent1 - agent", f"{middle} - location"]
    objects += [f"{type}Type - rtype" for type in sorted(kinds | {"SinkBasin", "Microwave", "Fridge"})]
    objects += [f"{type}Type - otype" for type in sorted(types | {"Knife", "ButterKnife"})]
    objects += [f"{place} - location" for place in sorted({one.place for one in room.receptacles})]
    objects += [f"{one.id} - receptacle" for one in room.receptacles] + [f"{id} - object" for id, _, _ in lying]
    facts = [f"atLocation agent1 {middle}"]
    facts += [f"canContain {kind}Type {type}Type" for kind in sorted(kinds) for type in sorted(types) if _may_hold(kind, type)]
    for one in room.receptacles:
        facts += [f"receptacleType {one.id} {one.type}Type", f"receptacleAtLocation {one.id} {one.place}"]
        facts += [f"openable {one.id}"] if one.type in constants.OPENABLE_CLASS_SET else []
    for id, type, host in lying:
        facts += [f"objectType {id} {type}Type", f"inReceptacle {id} {host.id}", f"objectAtLocation {id} {host.place}"]
        facts += [f"toggleable {id}"] if type == _LAMP else [f"pickupable {id}"]
        facts += [f"isReceptacleObject {id}"] if type in constants.MOVABLE_RECEPTACLES_SET else []
        can = ("Cleanable", "Heatable", "Coolable", "Sliceable")
        facts += [f"{may.lower()} {id}" for may in can if type in constants.VAL_ACTION_OBJECTS[may]]
    declared = "\n".join(_mangled(one.rpartition(" - ")[0]) + " - " + one.rpartition(" - ")[2] for one in objects)
    true = "\n".join(f"({_mangled(fact)})" for fact in facts)
    return f"(define (problem generated)\n(:domain alfred)\n(:objects\n{declared}\n)\n(:init\n{true}\n)\n{goal}"


def _mangled(text: str) -> str:
    return "".join(_MANGLED.get(char, char) for char in text)


def _folder() -> Path:
    """Where the package lies. It is not imported: that would make folders and set environment variables."""
    spec = find_spec("alfworld")
    assert spec and spec.origin
    return Path(spec.origin).parent


@functools.cache
def _package(name: str) -> ModuleType:
    """The package's module of tables gen/`name`.py, loaded without the package around it."""
    spec = spec_from_file_location(f"_alfworld_{name}", _folder() / "gen" / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _logic() -> tuple[str, str]:
    data = _folder() / "data"
    return (data / "alfred.pddl").read_text("utf-8"), (data / "alfred.twl2").read_text("utf-8")
