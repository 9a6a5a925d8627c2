"""TextWorld's engine for ALFWorld games, lean and quiet: it imports textworld, so import it only when a game is to be played.

One engine plays one game at a time. fast_downward keeps settings in its modules, as textworld keeps its parser, so all engines of
a process take turns, even for a step; Python's own lock would not let them run side by side anyway.
"""

from __future__ import annotations

import functools
import io
import re
import sys
from collections import Counter, defaultdict
from typing import Any, NamedTuple

from agentevolve.environments.support.alfworld.plans import names
from agentevolve.environments.support.textworld.lock import LOCK

KEPT = 32  # games of which the costly part of a start is kept, as tasks come again
_argv, sys.argv = sys.argv, ["translate", "domain", "task"]  # fast_downward reads its options from here when it is imported
try:
    from fast_downward.translate import normalize, options, translate
    from fast_downward.translate.pddl_parser import lisp_parser, parsing_functions
    from mementos.core import _memento_cache as facts_ever
    from textworld import EnvInfos, GameState
    from textworld.envs.pddl import PddlEnv
    from textworld.envs.pddl import logic as pddl
    from textworld.logic import Proposition, Type, Variable
finally:
    sys.argv = _argv


def _print(*words: Any, file: Any = None, **how: Any) -> None:
    """print for fast_downward, to files alone: it would catch its talk by swapping sys.stdout, which other threads write to."""
    if file:
        print(*words, file=file, **how)


for _name, _module in list(sys.modules.items()):
    if _name.startswith("fast_downward.translate"):
        vars(_module)["print"] = _print

_idle: list[Engine] = []


def borrow() -> Engine:
    """An engine that plays no game; give it back. Each has a copy of fast-downward's library, which is never unloaded."""
    with LOCK:
        return _idle.pop() if _idle else Engine(EnvInfos(admissible_commands=True, won=True))


def give_back(engine: Engine) -> None:
    """Let another game have the engine."""
    with LOCK:
        engine.rest()
        _idle.append(engine)


class Scene(NamedTuple):
    """What a game shows: its text, the admissible actions and whether the goal is reached."""

    text: str
    actions: list[str]
    won: bool


class Engine(PddlEnv):
    """textworld's PddlEnv with the names of alfworld's AlfredDemangler, which starts a game with a quarter of their work."""

    def start(self, game: dict[str, Any]) -> Scene:
        """Start `game`, as an ALFWorld game file holds it."""
        with LOCK:
            if len(facts_ever) > 100_000:  # textworld keeps every fact of every game, 0.5 MB of them a game
                facts_ever.clear()
            self._logic = _logic(game["pddl_domain"], game["grammar"])
            self._pddl_state = _State(self.downward_lib, game["pddl_problem"], self._logic)
            self._entity_infos = self._get_entity_infos()
            for id, name in names(self._entity_infos).items():
                self._entity_infos[id].name = name
            self.prev_state, self.state, self._last_action, self._moves = None, GameState(), None, 0
            self.state.feedback = self._logic.grammar.derive("#intro#", self._context({}))
            self._gather_infos()
            return self._scene()

    def play(self, command: str) -> Scene:
        """Take one admissible action."""
        with LOCK:
            self.step(command)
            return self._scene()

    def _gather_infos(self) -> None:
        """What PddlEnv gathers, as far as it is used here; it words all actions anew after every step, which costs it 0.1 s."""
        actions = list(self._pddl_state.all_applicable_actions())
        commands = [self._command(action) for action in actions]
        self.state["won"], self.state["lost"] = self._pddl_state.check_goal(), False
        self.state["_valid_actions"], self.state["_valid_commands"] = actions, commands
        self.state["admissible_commands"] = sorted(set(commands))

    def _command(self, action: Any) -> str:
        template, mapping = action.command_template, action.mapping
        said = tuple(thing.name for word, thing in mapping.items() if re.search(rf"\b{word.name}\b", template))
        words = self._pddl_state.words
        if (template, said) not in words:
            action.command_template = self._logic.grammar.derive(template, self._context(mapping))
            words[template, said] = action.format_command({id: info.name for id, info in self._entity_infos.items()})
        return words[template, said]

    def _context(self, mapping: dict[Any, Any]) -> dict[str, Any]:
        infos = self._entity_infos
        variables = {word.name: infos[thing.name] for word, thing in mapping.items()}
        return {"state": self._pddl_state, "facts": [], "variables": variables, "mapping": mapping, "entity_infos": infos}

    def rest(self) -> None:
        """Forget the game."""
        self.downward_lib.cleanup()
        self._logic = self._pddl_state = self._entity_infos = self.prev_state = None
        self.state = GameState()

    def _scene(self) -> Scene:
        return Scene(self.state.feedback, self.state["admissible_commands"], self.state["won"])


class _State(pddl.PddlState):
    """PddlState from one translation of the problem; the package's own makes another one for a planner that is not asked here."""

    def __init__(self, library: Any, problem: str, logic: pddl.GameLogic) -> None:
        self._facts, self._vars_by_name = defaultdict(set), {}
        self._vars_by_type, self._var_counts = defaultdict(set), Counter()
        self._logic, self.downward_lib = logic, library
        world = _translated(logic.domain, problem)
        self._actions, self.name2type, self.words = world.actions, world.types, world.words
        if not len(logic.types):
            for name, above in world.hierarchy.items():
                logic.types.add(Type(name, above))
        library.load_sas(world.sas)
        atoms = (pddl.Atom * library.get_state_size())()
        library.get_state(atoms)
        now = [atom.get_fact(world.types) for atom in atoms]
        self.add_facts([*world.facts, *(fact for fact in now if not fact.is_negation)])


class _World(NamedTuple):
    """A problem, translated for the library, and what the texts need of it."""

    sas: bytes
    facts: tuple[Proposition, ...]
    types: dict[str, str]  # of the entities, by their names
    hierarchy: dict[str, list[str]]  # a type and the types above it
    actions: dict[str, Any]
    words: dict[tuple[str, tuple[str, ...]], str]  # commands by template and entities, as they come up


@functools.lru_cache(maxsize=KEPT)
def _logic(domain: str, grammar: str) -> pddl.GameLogic:
    return pddl.GameLogic(domain=domain, grammar=grammar)


@functools.lru_cache(maxsize=KEPT)
def _translated(domain: str, problem: str) -> _World:
    """fast_downward.pddl2sas, of which the library needs the whole world, every fact and action."""
    vars(options).update(
        filter_unimportant_vars=False, filter_unreachable_facts=False, use_partial_encoding=False,
        skip_variable_reordering=True, add_implied_preconditions=False, invariant_generation_max_candidates=0,
    )  # fmt: skip
    try:
        task = parsing_functions.parse_task(*(lisp_parser.parse_nested_list(text.split("\n")) for text in (domain, problem)))
    except SystemExit as error:  # it takes this process for its own
        raise ValueError(f"not a game: {error}") from None
    normalize.normalize(task)
    sas = io.StringIO()
    translate.pddl_to_sas(task).output(sas)
    types = {one.name: one.type_name for one in task.objects}
    atoms = [one for one in task.init if getattr(one, "predicate", "=") != "="]
    return _World(
        sas=sas.getvalue().encode(),
        facts=tuple(Proposition(atom.predicate, [Variable(arg, types[arg]) for arg in atom.args]) for atom in atoms),
        types=types,
        hierarchy={one.name: one.supertype_names for one in reversed(task.types)},  # "object" twice: the first counts
        actions={action.name: action for action in task.actions},
        words={},
    )
