"""Methods that keep notes: what they are drawn from, by what they are found, and who sees them."""

from worlds import NUMBERS, lamp, make_tasks, walker

from agentevolve.act.rollout import rollout
from agentevolve.memory import read_entries
from agentevolve.methods.ace import ace
from agentevolve.methods.autoguide import autoguide
from agentevolve.methods.dynamic_cheatsheet import dynamic_cheatsheet
from agentevolve.methods.tran import tran

TASKS = make_tasks(4, length=2, limit=3)


def entries(home, kind):
    return read_entries(home.run.folder / "memory", kind=kind)


def look(home, policy, tasks, tokens=5000):
    """What a policy's attempts at these tasks are shown of memory."""
    recall = policy.recall.model_copy(update={"tokens": tokens})
    return [one.context for one in rollout(policy.using(recall=recall), tasks, home.run, phase="look")]


# --- AutoGuide ---


def guiding(messages, choices):
    """Takes a step to the lamp; every second attempt then walks on, and the others wait."""
    asked = messages[-1].content
    if "What situation is the player in" in asked:
        return f"Corridor {asked.partition('Corridor ')[2].partition('.')[0]}, near it.\nMore words."
    if "What should be done in this situation" in asked:
        return "you should GO ON, not wait."
    guiding.turns += "you stand at 0" in asked and len(messages) == 2
    return "wait" if len(messages) > 2 and guiding.turns % 2 else walker(messages, choices)


def test_autoguide_is_shown_both_attempts_up_to_where_they_part_and_nothing_after(house):
    guiding.turns = 0
    home = house(guiding)
    autoguide(home.policy, TASKS, home.run, samples=2)
    asked = [messages[-1].content for messages, _ in home.model.calls]
    situations = [prompt for prompt in asked if "What situation is the player in" in prompt]
    guides = [prompt for prompt in asked if "What should be done in this situation" in prompt]
    assert len(situations) == len(guides) == 4
    for task, situation, guide in zip(TASKS, situations, guides, strict=True):
        step = 1 if lamp(task) == "right" else -1
        for prompt in (situation, guide):
            assert f"> {lamp(task)}\n" in prompt and f"you stand at {step}" in prompt
            assert "> wait" not in prompt and f"you stand at {2 * step}" not in prompt
        assert f"was won went on with: {lamp(task)}\n" in guide and "was lost went on with: wait\n" in guide


def test_autoguide_s_guidelines_are_found_by_their_situation_not_by_what_they_say(house):
    guiding.turns = 0
    home = house(guiding)
    policy = autoguide(home.policy, TASKS, home.run, samples=2, nearest=1)
    found = entries(home, "insight")
    assert [one.key for one in found] == [
        f"Corridor {n}: the lamp is {lamp(task)}, you stand at 0, near it." for n, task in zip(NUMBERS, TASKS, strict=False)
    ]
    assert all(one.text == f"When {one.key} you should GO ON, not wait." for one in found)
    assert all(len(one.sources) == 2 and one.task == "" for one in found)
    for number, context in enumerate(look(home, policy, TASKS)):
        assert [one.text in context for one in found] == [place == number for place in range(4)]


def test_autoguide_draws_nothing_where_no_attempt_was_solved(house):
    home = house(lambda messages, choices: "wait" if len(messages) > 2 else walker(messages, choices))
    autoguide(home.policy, TASKS, home.run, samples=2)
    assert entries(home, "insight") == []
    assert not [fact for fact in home.run.facts if fact.startswith("ask/")]


# --- Dynamic Cheatsheet ---


def curating(messages, choices):
    """Walks to the lamp on the left alone, and writes sheets with running numbers."""
    asked = messages[-1].content
    if "Write the notes anew" not in asked:
        return walker(messages, choices) if "lamp is left" in asked else "wait"
    return f"SHEET {1 + max((n for n in range(9) if f'SHEET {n}.' in asked), default=0)}."


def sheets_of(home, round):
    return [one.text for one in read_entries(home.run.folder / "memory", kind="sheet", as_of=round)]


def curations(home) -> list[str]:
    return [messages[0].content for messages, _ in home.model.calls if "Write the notes anew" in messages[0].content]


def test_the_cheatsheet_is_rewritten_after_each_batch_and_shown_in_the_next_one(house):
    home = house(curating)
    policy = dynamic_cheatsheet(home.policy, TASKS, home.run, batch=2)
    assert home.seen("1/acquire/batch-0") == ["", ""]
    assert ["SHEET 1." in context for context in home.seen("1/acquire/batch-1")] == [True, True]
    assert sheets_of(home, 1) == ["SHEET 2."]
    assert [policy.recall.whole, policy.recall.nearest] == [("sheet",), {}]
    (context,) = look(home, policy, make_tasks(1, split="val", length=2))
    assert "SHEET 2." in context and "SHEET 1." not in context
    home.run.round = 2
    dynamic_cheatsheet(policy, TASKS[:2], home.run, batch=2)
    assert ["SHEET 2." in context for context in home.seen("2/acquire/batch-0")] == [True, True]
    assert [sheets_of(home, round) for round in (1, 2)] == [["SHEET 2."], ["SHEET 3."]]


def test_the_cheatsheet_s_curator_sees_the_sheet_before_and_the_batch_and_is_told_no_outcome(house):
    home = house(curating)
    dynamic_cheatsheet(home.policy, TASKS, home.run, batch=2)
    first, second = curations(home)
    assert "The notes so far" not in first and "The notes so far:\nSHEET 1.\n" in second
    for prompt, batch in ((first, TASKS[:2]), (second, TASKS[2:])):
        shown = [f"Corridor {name}:" in prompt for name in NUMBERS[:4]]
        assert shown == [task in batch for task in TASKS]
        assert prompt.count("An attempt, and it is for you to judge whether it went well:") == 2  # one was won, one lost
    lost = [one for one in home.run.trajectories.values() if not one.solved]
    assert len(lost) == 2


def test_the_cheatsheet_stays_when_the_curator_is_silent_and_is_cut_to_what_is_recalled(house):
    said = iter(["First.\n" + "x" * 30 + "\n" + "y" * 90, "", "z" * 99])
    home = house(lambda messages, choices: next(said) if "Write the notes anew" in messages[0].content else "wait")
    short = home.policy.using(recall=home.policy.recall.model_copy(update={"tokens": 20}))
    policy = dynamic_cheatsheet(short, TASKS[:2], home.run, batch=1)
    assert sheets_of(home, 1) == ["First.\n" + "x" * 30]
    home.run.round = 2
    dynamic_cheatsheet(policy, TASKS[:1], home.run)
    assert sheets_of(home, 2) == ["z" * 80]


def test_a_cheatsheet_s_round_that_was_killed_is_run_again_to_the_same_sheet(house):
    home = house(curating)
    dynamic_cheatsheet(home.policy, TASKS, home.run, batch=1)
    assert len(curations(home)) == 4
    asked = len(home.model.calls)
    for kept in range(4):
        dynamic_cheatsheet(home.policy, TASKS[: kept + 1], home.run, batch=1)
    assert sheets_of(home, 1) == ["SHEET 4."] and len(home.model.calls) == asked


# --- ACE ---

ADDS = "ADD: Look where the lamp is.\nADD: Count your steps.\nEDIT 1: REWRITTEN\nREMOVE 2"


class Player:
    """Walks to the lamp; says the `tags` and the `delta` that it is told to."""

    def __init__(self, tags="", delta=""):
        self.tags, self.delta = tags, delta

    def __call__(self, messages, choices):
        asked = messages[-1].content
        if "what should be known next time" in asked:
            return f"{self.tags}\nThe player walked."
        return self.delta if "What does the playbook lack?" in asked else walker(messages, choices)


def asked(home, words) -> list[str]:
    return [messages[0].content for messages, _ in home.model.calls if words in messages[0].content]


def test_ace_s_playbook_grows_by_deltas_that_see_each_other_and_nothing_is_rewritten(house):
    home = house(Player(delta=ADDS))
    policy = ace(home.policy, TASKS[:2], home.run)
    found = entries(home, "insight")
    assert [one.text for one in found] == ["Look where the lamp is.", "Count your steps."]  # what is alike is added once
    assert [one.counts for one in found] == [{}, {}]
    first, second = asked(home, "What does the playbook lack?")
    assert "The playbook so far" not in first
    assert "The playbook so far:\n- Look where the lamp is.\n- Count your steps.\n" in second
    assert [prompt.count("The player walked.") for prompt in (first, second)] == [1, 1]
    (context,) = look(home, policy, make_tasks(1, split="val", length=2))
    assert all(one.text in context for one in found)


def test_ace_counts_the_tags_of_bullets_that_were_shown_and_leaves_the_others_alone(house):
    home = house(player := Player(delta="ADD: Look where the lamp is.\nADD: Count your steps.\nADD: Never wait there."))
    policy = ace(home.policy, TASKS[:1], home.run)
    before = [one.id for one in entries(home, "insight")]
    home.run.round = 2
    player.tags, player.delta = "HELPFUL 2\n- HARMFUL: 7, 0\nHELPFUL 2", ""
    policy = ace(policy, TASKS[:2], home.run)
    found = entries(home, "insight")
    assert {one.text: one.counts for one in found} == {
        "Look where the lamp is.": {},
        "Count your steps.": {"helpful": 2},  # once for each attempt
        "Never wait there.": {},
    }
    assert {one.id for one in found} == {before[0], before[2], f"{before[1]}@2"}
    (tag, *_) = asked(home, "The playbook that was in view")
    assert "1. Look where the lamp is.\n2. Count your steps.\n3. Never wait there.\n" in tag and "that succeeded" in tag


def test_ace_drops_a_bullet_that_was_harmful_more_often_than_helpful(house):
    home = house(player := Player(delta="ADD: Look where the lamp is.\nADD: Count your steps."))
    policy = ace(home.policy, TASKS[:1], home.run)
    home.run.round = 2
    player.tags, player.delta = "HARMFUL 1", ""
    policy = ace(policy, TASKS[:1], home.run)
    assert [one.text for one in entries(home, "insight")] == ["Count your steps."]
    assert len(read_entries(home.run.folder / "memory", kind="insight", as_of=1)) == 2
    home.run.round = 3
    player.tags, player.delta = "HARMFUL 1\nHELPFUL 1", ""
    ace(policy, TASKS[:1], home.run)
    assert [one.counts for one in entries(home, "insight")] == [{"helpful": 1, "harmful": 1}]


def test_ace_s_playbook_is_held_to_what_is_recalled_and_the_best_stay(house):
    home = house(player := Player(delta="ADD: first thing to know\nADD: another point here\nADD: some words again"))
    policy = ace(home.policy, TASKS[:1], home.run)
    home.run.round = 2
    player.tags, player.delta = "HELPFUL 3", "ADD: yet more of that"
    narrow = policy.recall.model_copy(update={"tokens": 16})  # 64 characters: three of the bullets
    ace(policy.using(recall=narrow), TASKS[:1], home.run)
    assert {one.text for one in entries(home, "insight")} == {"some words again", "yet more of that", "first thing to know"}


def test_a_round_of_ace_that_is_run_again_changes_nothing_and_asks_nothing(house):
    home = house(player := Player(delta=ADDS))
    policy = ace(home.policy, TASKS[:2], home.run)
    home.run.round = 2
    player.tags, player.delta = "HELPFUL 1", "ADD: Go on."
    ace(policy, TASKS[:2], home.run)
    found, calls = entries(home, "insight"), len(home.model.calls)
    ace(policy, TASKS[:2], home.run)
    assert (entries(home, "insight"), len(home.model.calls)) == (found, calls)
    assert sorted(one.counts.get("helpful", 0) for one in found) == [0, 0, 2]


# --- TRAN ---


def ruling(written, helps=(), shared="If COMMON, then walk.", known="no"):
    """Finds the lamp on the left, and that on the right when it sees one of the rules that help; says what it is told."""

    def script(messages, choices):
        asked = messages[-1].content
        if "Which rules would have avoided" in asked:
            return written
        if "none of them alone was enough" in asked:
            return shared
        if "Does the new rule say the same" in asked:
            return known(asked) if callable(known) else known
        able = "lamp is left" in messages[1].content or any(rule in messages[1].content for rule in helps)
        return ("right" if "lamp is right" in asked else "left") if able else "wait"

    return script


BOTH = "If A, then walk on.\nIf B, then wait more."


def test_tran_keeps_a_rule_only_if_the_failed_task_is_solved_with_it(house):
    home = house(ruling(BOTH, helps=["If A, then walk on."]))
    policy = tran(home.policy, TASKS[:2], home.run)
    assert [(one.text, one.key, one.sources) for one in entries(home, "insight")] == [
        ("If A, then walk on.", "If A, then walk on.", (f"1/acquire/{TASKS[1].id}/0",))
    ]
    tried = {one.phase: one for one in home.run.trajectories.values() if one.hint}
    assert {phase: one.task.id for phase, one in tried.items()} == dict.fromkeys(
        ("1/acquire/rule-0", "1/acquire/rule-1"), TASKS[1].id
    )
    for number, rule in enumerate(BOTH.split("\n")):  # each alone
        assert [one in tried[f"1/acquire/rule-{number}"].hint for one in BOTH.split("\n")] == [number == 0, number == 1], rule
    assert not asked(home, "none of them alone was enough")
    assert policy.recall.nearest == {"insight": 3}
    (context,) = look(home, policy, make_tasks(1, split="val", length=2))
    assert "If A, then walk on." in context and "If B" not in context


def test_tran_draws_one_rule_from_similar_failures_that_no_rule_mended_and_verifies_it_too(house):
    home = house(ruling(BOTH, helps=["If COMMON"]))
    tran(home.policy, TASKS, home.run, alike=0.5)
    (prompt,) = asked(home, "none of them alone was enough")
    assert prompt.count("- If A, then walk on.") == prompt.count("- If B, then wait more.") == 2
    (rule,) = entries(home, "insight")
    assert (rule.text, rule.sources) == ("If COMMON, then walk.", tuple(f"1/acquire/{TASKS[n].id}/0" for n in (1, 3)))
    vain = house(ruling(BOTH))
    tran(vain.policy, TASKS, vain.run, alike=0.5)
    assert entries(vain, "insight") == [] and len(asked(vain, "none of them alone was enough")) == 1
    apart = house(ruling(BOTH))
    tran(apart.policy, TASKS, apart.run, alike=1.0)
    assert len(asked(apart, "none of them alone was enough")) == 2


def test_tran_drops_what_repeats_or_contradicts_a_known_rule(house):
    def clashes(asked):
        return "yes" if "A new rule:\n- If C" in asked else "no"

    home = house(
        ruling("If A, then walk on.\nif a then WALK ON\nIf C, then wait.\nIf D, then walk.", ["If ", "if "], known=clashes)
    )
    tran(home.policy, TASKS[:2], home.run, written=4)
    assert [one.text for one in entries(home, "insight")] == ["If A, then walk on.", "If D, then walk."]
    assert len(asked(home, "Does the new rule say the same")) == 2  # the first has nothing to clash with, the second is the same


def test_tran_drops_the_least_recently_recalled_rules_over_the_cap(house):
    home = house(ruling("If corridor two, then walk.\nIf lanterns shine, then walk.\nIf birds sing, then walk.", ["If "]))
    policy = tran(home.policy, TASKS[1:2], home.run, nearest=1)
    assert len(entries(home, "insight")) == 3
    home.run.round = 2
    tran(policy, TASKS[1:2], home.run, nearest=1, cap=2)
    (recalled,) = {one.recalled for one in home.run.trajectories.values() if one.phase == "2/acquire"}
    assert len(recalled) == 1
    left = [one.text for one in entries(home, "insight")]
    assert left == ["If corridor two, then walk.", "If birds sing, then walk."]  # recalled, and the younger of the others
    calls = len(home.model.calls)
    tran(policy, TASKS[1:2], home.run, nearest=1, cap=2)
    assert ([one.text for one in entries(home, "insight")], len(home.model.calls)) == (left, calls)
