"""The survey's map: its cells, and what the methods' files say of themselves."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from agentevolve.load import methods
from agentevolve.protocols import AgentevolveError
from agentevolve.survey import CELLS, all_methods, described, markdown

PACKAGE = Path(inspect.getfile(markdown)).parent


def test_the_survey_has_22_cells_and_every_named_operator_is_there():
    assert len(CELLS) == 22
    for operator in {name for names in CELLS.values() for name in names}:
        module, _, function = operator.rpartition(".")
        found = getattr(importlib.import_module(f"agentevolve.{module}"), function)
        assert callable(getattr(found, function, found)), operator  # a module that is called like its function


@pytest.mark.parametrize("name", methods())
def test_every_method_says_what_it_is(name):
    one = described(name)
    assert one.survey or one.ours
    assert set(one.survey) | set(one.ours) <= set(CELLS)
    assert not set(one.survey) & set(one.ours)
    assert one.deviations.startswith("1. ")
    assert one.about and one.steps


def test_every_cell_has_an_operator_and_a_method():
    placed = {cell for one in all_methods() for cell in (*one.survey, *one.ours)}
    assert [cell for cell, operators in CELLS.items() if not operators or cell not in placed] == []


def test_the_page_of_methods_is_what_the_code_says():
    page = (Path(__file__).parents[1] / "METHODS.md").read_text("utf-8")
    assert page == markdown(), "python -m agentevolve.survey > METHODS.md"


def test_a_method_s_cost_is_read_off_its_operators():
    assert described("memento").cost == "asks for no text; trains nothing"
    assert described("expel").asks == ("refine.insights", "refine.reflect")
    assert described("gepa").asks == ("methods.gepa",)
    assert described("tran").asks == ("refine.collective", "refine.if_then", "refine.unheard")
    assert described("star").cost == "asks for no text; fine-tunes; sees the worlds' solutions"


def test_operators_and_methods_are_short():
    rooms = [PACKAGE / room for room in ("acquire", "refine", "update", "evaluate")]
    for path in [path for room in rooms for path in room.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name}"


def test_methods_are_short():
    lengths = sorted(
        len(inspect.getsource(importlib.import_module(f"agentevolve.methods.{name}")).splitlines()) for name in methods()
    )
    assert lengths[len(lengths) // 2] <= 60


def test_an_unknown_method_lists_the_known_ones():
    assert [one.name for one in all_methods()] == methods()
    with pytest.raises(AgentevolveError, match="unknown method 'rtf'; known: ace, "):
        described("rtf")
