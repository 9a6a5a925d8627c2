import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from agentevolve.evaluate import learning_curve, table, to_json
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Difference, PolicyStamp, Report, Usage

HOSTILE = "[red]x[/] [link=file:///]y \x1b[31m \ud800 $\\frac{ <b>&--><!--\n😀"
ARMS = {"random": 0.3, "base": 0.21, "base + memory": 0.42, "base + shuffled memory": 0.25, "distilled": 0.55, "oracle": 1.0}


def made(arm: str, success: float, versus: str = "") -> Report:
    return Report(
        arm=arm,
        policy=PolicyStamp(model="m"),
        split="test",
        n=100,
        success=success,
        low=max(0, success - 0.1),
        high=min(1, success + 0.1),
        reward=success,
        turns=5.25,
        errors=3,
        usage=Usage(calls=500, prompt_tokens=90_000, completion_tokens=4_000, seconds=320),
        versus=versus,
        difference=Difference(mean=0.21, low=-0.014, high=0.34, n=100) if versus else None,
    )


def reports(shift: float = 0.0) -> list[Report]:
    return [made(arm, min(1.0, success + shift), "base" if "+" in arm else "") for arm, success in ARMS.items()]


def printed(given: list[Report], title: str = "test", width: int = 100) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table(given, title))
    out.getvalue().encode()
    return out.getvalue().splitlines()


def test_the_table_has_a_line_an_arm_at_100_columns():
    lines = [line.split() for line in printed(reports())]
    assert "arm n success % vs base turns tokens seconds errors".split() in lines  # noqa: SIM905
    assert ["base", "+", "memory", "100", "42", "[32,", "52]", "+21", "[-1,", "+34]", "5.2", "913", "3.11", "3"] in lines
    assert ["random", "100", "30", "[20,", "40]", "–", "5.2", "913", "3.11", "3"] in lines
    assert len([line for line in lines if line]) == 3 + len(ARMS)  # title, head, rule


@pytest.mark.parametrize(
    ("changed", "cells"),
    [
        ({"n": 0, "success": 0.0, "errors": 3}, ["0", "–", "no", "verdict", "–", "31,333", "106.67", "3"]),
        ({"n": 0, "success": 0.0, "errors": 0}, ["0", "–", "no", "verdict", "–", "–", "–", "0"]),
        ({"n": 97, "errors": 3}, ["97", "42", "[32,", "52]", "no", "verdict", "5.2", "940", "3.20", "3"]),
    ],
)
def test_the_table_says_nothing_of_what_was_lost_but_its_cost(changed, cells):
    few = Difference(mean=0.21, low=-0.014, high=0.34, n=80, pairs=80, lost=20)
    shown = printed([made("memory", 0.42, "base").model_copy(update={"difference": few} | changed)])
    assert [line.split() for line in shown][-2] == ["memory", *cells]


def test_tokens_from_a_cache_and_shortened_memories_have_a_column_where_there_were_any():
    usage = reports()[0].usage.model_copy(update={"cached_tokens": 5_000})
    one = made("memory", 0.42, "").model_copy(update={"usage": usage, "cut": 7})
    lines = [line.split() for line in printed([one, made("base", 0.42, "")])]
    assert lines[-5][-6:] == ["turns", "tokens", "cached", "seconds", "errors", "cut"]
    assert lines[-2 - 1][-6:] == ["5.2", "913", "49", "3.11", "3", "7"] and lines[-2][-4:] == ["0", "3.11", "3", "0"]


def test_the_table_loses_nothing_at_80_columns():
    lines = printed(reports(), width=80)
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)


def test_several_baselines_are_named_in_their_rows():
    text = "\n".join(printed([made("a", 0.5, "base"), made("b", 0.5, "distilled")], width=160))
    assert "+21 [-1, +34] vs base" in text and "+21 [-1, +34] vs distilled" in text


def test_hostile_names_are_shown_as_text():
    text = "\n".join(printed([made(HOSTILE, 0.5, HOSTILE)], HOSTILE, width=200))
    assert text.count("[red]x[/] [link=file:///]y") == 3
    assert "\x1b" not in text
    assert len(printed([made("x" * 100_000, 0.5)])) < 20


def test_json_holds_the_reports():
    given = reports()
    assert [Report.model_validate(item) for item in json.loads(json.dumps(to_json(given)))] == given


def curve(path: Path, rounds: int, **more: object) -> Path:
    return learning_curve({number: reports(number / 20) for number in range(rounds)}, path, **more)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_picture_is_900_pixels_wide_and_the_same_each_time(tmp_path: Path, rounds: int):
    for suffix in ("png", "svg"):
        one, two = (curve(tmp_path / "new" / f"{name}.{suffix}", rounds).read_bytes() for name in "ab")
        assert one == two
        if suffix == "png":
            assert one[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(one[16:20], "big") == 900


def test_a_picture_shows_every_arm_and_seed(tmp_path: Path):
    def marks(path: Path) -> int:
        return sum(1 for _ in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}use"))

    for rounds in (1, 3):
        plain = curve(tmp_path / "plain.svg", rounds)
        names = "".join(plain.read_text())
        assert all(f"<!-- {arm}" in names for arm in ARMS)
        seeds = [{number: reports(0.05 * seed) for number in range(rounds)} for seed in range(2)]
        curves = 5 if rounds == 1 else 4  # over rounds, random is a line like the oracle
        assert marks(curve(tmp_path / "seeds.svg", rounds, seeds=seeds)) - marks(plain) == curves * rounds * 2


@pytest.mark.parametrize("arm", ["oracle", "random", HOSTILE])
def test_a_picture_of_one_odd_arm(tmp_path: Path, arm: str):
    for rounds in ({0: [made(arm, 1.0)]}, {0: [made(arm, 0.0)], 2: [made(arm, 0.5)]}):
        path = learning_curve(rounds, tmp_path / "a.svg", title=HOSTILE)
        ElementTree.parse(path)


def test_a_picture_leaves_out_arms_that_were_lost(tmp_path: Path):
    lost = made("lost", 0.0).model_copy(update={"n": 0, "errors": 3})
    for rounds in (1, 2):
        drawn = learning_curve({number: [lost, made("base", 0.5)] for number in range(rounds)}, tmp_path / "a.svg").read_text()
        assert "<!-- base" in drawn and "<!-- lost" not in drawn


def test_a_picture_of_nothing_or_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(AgentevolveError, match=r"a\.png: no reports"):
        learning_curve({0: []}, tmp_path / "a.png")
    with pytest.raises(AgentevolveError, match=r"a\.gif: a picture's name ends in one of \.png, \.svg"):
        curve(tmp_path / "a.gif", 1)


def test_importing_the_evaluation_loads_nothing_heavy():
    program = "import sys, agentevolve.evaluate; print([n for n in ('scipy', 'matplotlib', 'numpy', 'rich') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
