"""The survey's map: its cells, and what the methods' files say of themselves."""

import importlib
import inspect

import pytest

from agentevolve.load import methods
from agentevolve.protocols import AgentevolveError
from agentevolve.survey import CELLS, all_methods, described


def test_the_survey_has_22_cells_and_every_named_operator_is_there():
    assert len(CELLS) == 22
    for operator in {name for names in CELLS.values() for name in names}:
        module, _, function = operator.rpartition(".")
        assert callable(getattr(importlib.import_module(f"agentevolve.{module}"), function)), operator


@pytest.mark.parametrize("name", methods())
def test_every_method_says_what_it_is(name):
    one = described(name)
    assert one.survey or one.ours
    assert set(one.survey) | set(one.ours) <= set(CELLS)
    assert not set(one.survey) & set(one.ours)
    assert one.deviations.startswith("1. ")
    assert one.about and one.steps


def test_methods_are_short():
    lengths = sorted(
        len(inspect.getsource(importlib.import_module(f"agentevolve.methods.{name}")).splitlines()) for name in methods()
    )
    assert lengths[len(lengths) // 2] <= 60


def test_an_unknown_method_lists_the_known_ones():
    assert [one.name for one in all_methods()] == methods()
    with pytest.raises(AgentevolveError, match="unknown method 'rtf'; known: ace, "):
        described("rtf")
