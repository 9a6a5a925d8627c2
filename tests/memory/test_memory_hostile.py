"""What a hostile world, file or reflector can do, with every defence and with none; and what is said of a clean memory."""

import pytest
from honest import honest
from hostile import CASES, DEFENCES, OURS_ALONE, THROUGH, Home, composed

from agentevolve.local.rows import clean
from agentevolve.memory import HashEmbedder, open_memory, read_ledger
from agentevolve.memory.audit import audit
from agentevolve.memory.form import quoted
from agentevolve.redact import redact
from agentevolve.run.folder import Run
from agentevolve.update import sound


def test_there_are_enough_attacks_and_what_gets_through_is_named():
    assert len(CASES) >= 40 and len({(case.vector, case.name) for case in CASES}) == len(CASES)
    assert THROUGH.keys() <= {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.vector}: {case.name}"[:90])
def test_an_attack_succeeds_without_defences_and_not_with_them_but_for_those_that_are_named(case, tmp_path):
    won, _ = case.succeeds(tmp_path / "off", frozenset(DEFENCES))
    assert won
    home = Home(tmp_path / "on")
    case.attack(home)
    assert case.won(home) == (case.name in THROUGH)
    shown = [home.memory.get(id) for id in home.later().recalled]
    assert composed(home.later(), shown, home.as_turns, [quoted, clean]) == home.prompt, "the harness sees what the agent sees"
    home.run.close()


@pytest.mark.parametrize("defence", DEFENCES)
def test_each_defence_meets_what_no_other_one_does(defence, tmp_path):
    case = next(case for case in CASES if case.name == OURS_ALONE[defence])
    assert case.succeeds(tmp_path, frozenset({defence}))[0]


def test_a_clean_memory_is_left_as_it_is_and_nothing_is_said_of_it(tmp_path, capsys):
    made = honest(tmp_path)
    assert len(made) >= 200
    run = Run(tmp_path / "honest", quiet=True)
    assert sound(made, run) == made
    run.close()
    for one in made:
        seen = [text for turn in one.lived.turns for text in (turn.action, turn.observation)] if one.lived else []
        for text in (one.key, one.text, *seen):
            assert clean(quoted(redact(text))) == text
    with open_memory(tmp_path / "m", embedder=HashEmbedder()) as memory:
        memory.add(made)
    assert audit(read_ledger(tmp_path / "m")) == []
    assert capsys.readouterr().err == ""
