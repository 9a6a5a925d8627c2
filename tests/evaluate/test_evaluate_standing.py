"""How compared methods stand: from attempts to rows, verdicts, caveats, and the files that show them."""

import csv
import io

import pytest
from rich.console import Console
from test_evaluate_stats import attempt, lost

from agentevolve.evaluate import Arm, Learnt, board, caveats, curves, markdown, standings, to_csv
from agentevolve.records import Usage

COST = Usage(prompt_tokens=90, completion_tokens=10, trained_tokens=50, seconds=2.0, usd=0.5)
TASKS = 20


def played(successes: int, seed: int, shift: int = 0) -> list:
    return [attempt(f"t{n}", float((n + shift) % TASKS < successes), seed=seed) for n in range(TASKS)]


def learnt(method: str, seed: int, *successes: int, extra: dict | None = None, taught: bool = False) -> Learnt:
    """A method that solves so many of the tasks after each of its rounds."""
    arms = [Arm("learnt", str(number), played(many, seed)) for number, many in enumerate(successes, 1)]
    arms += [Arm(name, "end", played(many, seed)) for name, many in (extra or {}).items()]
    rounds = [(4 * number, sum([COST] * number, Usage())) for number in range(1, len(successes) + 1)]
    return Learnt("coin", seed, method, arms, {}, rounds, taught)


def controls(seed: int) -> Learnt:
    names = {"no learning": 4, "random": 1, "oracle": TASKS, "guard": 10}
    return Learnt("coin", seed, "controls", [Arm(name, "0", played(many, seed)) for name, many in names.items()], {}, [], False)


def rows() -> list:
    found = []
    for seed in (0, 1, 2):
        found.append(controls(seed))
        found.append(learnt("good", seed, 8, 18, extra={"shuffled memory": 6, "empty memory": 12, "guard": 7}, taught=True))
        found.append(learnt("idle", seed, 5))
        found.append(learnt("bad", seed, 4, *([0] if seed else [])))
        found.append(learnt("dear", seed))
    return standings(found, 1)


def test_a_method_is_held_against_no_learning_seed_by_seed():
    good = rows()[3]
    assert (good.method, good.n, good.success, good.rounds) == ("good", 60, 0.9, (2, 2, 2))
    assert good.difference.mean == pytest.approx(0.7) and good.difference.n == TASKS
    assert good.by_seed == pytest.approx((0.7, 0.7, 0.7))
    assert (good.episodes, good.learning_tokens, good.usd, good.seconds) == (8, 300, 1.0, 4.0)
    assert good.from_memory.mean == pytest.approx(0.6)
    assert good.without_memory.mean == pytest.approx(0.4)
    assert good.forgotten.mean == pytest.approx(-0.15)
    assert [(point.round, point.tokens, point.success) for point in good.curve] == [(0, 0, 0.2), (1, 150, 0.4), (2, 300, 0.9)]


def test_the_verdicts_are_corrected_for_how_many_were_looked_at():
    good, idle, bad, dear = rows()[3:]
    assert [row.verdict for row in (good, idle, bad, dear)] == [
        "better",
        "no difference shown",
        "no difference shown",
        "nothing learnt",
    ]
    assert good.p_holm == pytest.approx(4 * good.p)
    assert dear.difference.mean == 0 and dear.rounds == (0, 0, 0)
    assert bad.rounds == (1, 2, 2)
    assert len(bad.curve) == 2  # only what every seed has finished


def test_worse_is_said_too():
    found = [
        one
        for seed in (0, 1)
        for one in (controls(seed), Learnt("coin", seed, "bad", [Arm("learnt", "1", played(0, seed))], {}, [(1, COST)], False))
    ]
    base = [one for one in found if one.method == "controls"]
    for one in base:
        one.arms[0] = Arm("no learning", "0", played(15, one.seed))
    assert standings(found, 1)[3].verdict == "worse"


def losing(one: Learnt, name: str, tasks: int) -> Learnt:
    """The same with the first so many attempts of the arm lost."""
    gone = [lost(f"t{n}", seed=one.seed) for n in range(tasks)]
    arms = [arm._replace(attempts=gone + arm.attempts[tasks:]) if arm.name == name else arm for arm in one.arms]
    return one._replace(arms=arms)


@pytest.mark.parametrize(
    ("arm", "tasks", "verdicts", "pairs"),
    [
        ("learnt", 0, ["better", "no difference shown"], (60, 60)),
        ("learnt", 2, ["better", "no difference shown"], (54, 60)),  # as much as LOST_SHARE
        ("learnt", 3, ["no verdict", "no difference shown"], (51, 60)),
        ("learnt", TASKS, ["no verdict", "no difference shown"], (0, 60)),
        ("no learning", 3, ["no verdict", "no verdict"], (51, 51)),
        ("no learning", TASKS, ["no verdict", "no verdict"], (0, 0)),
    ],
)
def test_with_too_many_pairs_lost_there_is_no_verdict(arm, tasks, verdicts, pairs, tmp_path):
    found = []
    for seed in (0, 1, 2):
        found.append(losing(controls(seed), arm, tasks))
        found.append(losing(learnt("good", seed, 18), arm, tasks))
        found.append(learnt("idle", seed, 5))
    made = standings(found, 1)
    assert [row.verdict for row in made[3:]] == verdicts
    assert tuple(row.difference.pairs for row in made[3:]) == pairs
    for row in made[3:]:
        judged = row.verdict != "no verdict"
        assert (row.p is None, row.p_holm is None, row.no_verdict == "") == (not judged, not judged, judged)
        assert all(one is None for one in row.by_seed) is (row.difference.pairs == 0)
    good, idle = made[3:]
    assert idle.p is None or idle.p_holm == pytest.approx(max(idle.p, good.p_holm or 0)), "Holm's correction is over the judged"
    assert good.p is None or good.p_holm == pytest.approx(2 * good.p)
    none = [row.method for row in made[3:] if row.verdict == "no verdict"]
    said = [line for line in caveats(made, "local/m") if line.startswith("No verdict on")]
    of = f"{3 * tasks} of 60 pairs were lost ({3 * tasks} in {arm if arm == 'no learning' else 'good'}), most often by: "
    reason = f"TimeoutError: no answer ({3 * tasks} of {3 * tasks})."
    assert said == [f"No verdict on {name}: {of}{reason}" for name in none]
    text = markdown(made, said, "Made by hand.")
    assert ("no verdict" in text) is bool(none) and ("| errors |" in text) is bool(tasks)
    lines = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert [line["method"] for line in lines[3:] if line["difference_mean"] == line["p"] == ""] == none
    assert curves(made, tmp_path / "curves.png", unit="episodes").stat().st_size


def test_what_cannot_be_concluded_names_who_it_is_about():
    said = "\n".join(caveats(rows(), "local/m"))
    assert "local/m on coin" in said
    assert "all that is known of: idle, bad." in said
    assert "says nothing about the method: dear." in said
    assert "saw solutions that the worlds gave, free of tokens, which the others did not: good." in said
    assert "with the 3 seeds as they fell: of other trainings they say nothing more than" in said
    alone = caveats(standings([controls(0), learnt("good", 0, 18)], 1), "local/m")
    assert "Intervals and p-values are over tasks, with the one seed as it fell: of other trainings they say nothing." in alone


def test_the_csv_has_a_line_a_row_and_a_difference_in_three_columns():
    lines = list(csv.DictReader(io.StringIO(to_csv(rows()))))
    assert [line["method"] for line in lines] == ["no learning", "random", "oracle", "good", "idle", "bad", "dear"]
    assert float(lines[3]["difference_mean"]) == pytest.approx(0.7)
    assert float(lines[3]["forgotten_low"]) <= -0.15
    assert lines[0]["difference_mean"] == lines[4]["from_memory_mean"] == ""
    assert lines[5]["rounds"] == "1 2 2"


def test_the_markdown_says_all_and_escapes_what_comes_from_outside():
    found = [row.model_copy(update={"method": "<b>|x\n`"}) if row.method == "idle" else row for row in rows()]
    text = markdown(found, ["no *end*"], "Made by hand.")
    line = next(line for line in text.splitlines() if "good" in line)
    assert line.startswith("| good\\* | 60 | 90 \\[70, 97\\] | +70 \\[+40, +86\\] | +70 +70 +70 |")
    assert "\\<b\\>\\|x \\`" in text
    assert text.rstrip().endswith("- no \\*end\\*")
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| ") and "<b" not in line}) == 1


def test_the_board_fits_a_terminal_and_takes_names_as_text():
    found = [row.model_copy(update={"method": "[red]x"}) if row.method == "idle" else row for row in rows()]
    out = io.StringIO()
    Console(file=out, width=160).print(board(found, "coin"))
    assert "[red]x" in out.getvalue()
    assert "good*" in out.getvalue()


@pytest.mark.parametrize("unit", ["episodes", "tokens", "usd"])
def test_the_curves_are_a_panel_a_method(tmp_path, unit):
    import matplotlib.image

    path = curves(rows(), tmp_path / "new" / "curves.png", unit=unit)
    few = matplotlib.image.imread(path).shape
    many = [row.model_copy(update={"method": f"{row.method}{n}"}) for n in range(3) for row in rows()[3:]]
    assert matplotlib.image.imread(curves(rows()[:3] + many, tmp_path / "many.png", unit=unit)).shape[0] > few[0]


@pytest.mark.parametrize(("now", "told"), [("response_format", False), ("free text", True)])
def test_a_method_that_was_asked_otherwise_than_its_control_is_named(now, told):
    def asked(one: Learnt, way: str) -> Learnt:
        arms = [
            arm._replace(attempts=[played.model_copy(update={"asked": (way,)}) for played in arm.attempts]) for arm in one.arms
        ]
        return one._replace(arms=arms)

    found = standings([asked(controls(0), "response_format"), asked(learnt("good", 0, 18), now)], 1)
    said = "good was asked otherwise than no learning (free text, against response_format): its difference may be that."
    assert (said in caveats(found, "m")) is told
