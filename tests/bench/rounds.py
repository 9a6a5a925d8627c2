"""The courses of evolutions side by side: `python tests/bench/rounds.py NAME=RUN… [--picture FILE]`.

For each run (all its seeds) and round, what was in place: success with its interval, how many different actions it took, tokens
of all attempts for each that was solved. The table is Markdown.

Up to the first round that the gate rolls back, a run with a gate and one without do the very same. So the second need not be made
from the beginning: `python tests/bench/rounds.py --branch RUN NEW` copies each ended seed of RUN up to the gate's first refusal,
as a run without a gate, and `agentevolve evolve CONFIG gate.rule=none --out NEW --resume` goes on from there.
"""

import json
import shutil
import sys
from pathlib import Path

from agentevolve.evaluate import learning_curve
from agentevolve.evaluate.table import percent
from agentevolve.loop.course import course, in_place
from agentevolve.run.folder import read_run, seeds


def branch(run: Path, new: Path) -> None:
    """Copy each seed that has ended, up to where the gate first kept a candidate out."""
    new.mkdir(parents=True, exist_ok=True)
    config = (run / "config.yaml").read_text()
    assert config.count("rule: interval") == 1
    (new / "config.yaml").write_text(config.replace("rule: interval", "rule: none"))
    for seed in seeds(run):
        lines = (seed / "journal.jsonl").read_bytes().splitlines(keepends=True)
        refused = [at for at, line in enumerate(lines) if refusal(line)]
        if (new / seed.name).exists() or not any(b'"name":"gate 5/val"' in line[:100] for line in lines):
            continue
        round = int(json.loads(lines[refused[0]])["name"].split()[1].split("/")[0]) if refused else 5
        shutil.copytree(seed, new / seed.name, ignore=shutil.ignore_patterns(".*", "underway.jsonl"))
        (new / seed.name / "journal.jsonl").write_bytes(b"".join(lines[: refused[0]] if refused else lines))
        entries = new / seed.name / "memory" / "entries.jsonl"
        known = [line for line in entries.read_bytes().splitlines(keepends=True) if json.loads(line)["entry"]["round"] <= round]
        entries.write_bytes(b"".join(known))
        (entries.parent / "closed").unlink(missing_ok=True)
        for adapter in (new / seed.name / "adapters").glob("round-*"):
            if int(adapter.name.split("-")[1]) > round:
                shutil.rmtree(adapter)
        print(f"{new / seed.name}: as {seed} up to round {round}")


def refusal(line: bytes) -> bool:
    if not line.startswith(b'{"kind":"fact","name":"gate '):
        return False
    return json.loads(line)["data"]["promoted"] is None


def main(words: list[str]) -> None:
    if words[0] == "--branch":
        branch(Path(words[1]), Path(words[2]))
        return
    picture = Path(words.pop(words.index("--picture") + 1)) if "--picture" in words else None
    named = dict(word.split("=", 1) for word in words if word != "--picture")
    runs = {name: [read_run(folder) for folder in seeds(Path(place))] for name, place in named.items()}
    print(
        "| round | " + " | ".join(f"{name}: success % | in place | different actions | tokens a solved" for name in runs) + " |"
    )
    print("|---" * (1 + 4 * len(runs)) + "|")
    courses = {name: {stage.round: stage for stage in course(found)} for name, found in runs.items()}
    for number in sorted(set.union(*(set(found) for found in courses.values()))):
        cells = [str(number)]
        for stages in courses.values():
            one = stages.get(number)
            cells += [percent(one), ", ".join(one.arms), str(one.different), f"{one.tokens:,.0f}"] if one else ["–"] * 4
        print("| " + " | ".join(cells) + " |")
    if picture:
        by_name = {name: in_place(found, name) for name, found in runs.items()}
        shared = sorted(set.intersection(*(set(found) for found in by_name.values())))
        print(learning_curve({number: [found[number] for found in by_name.values()] for number in shared}, picture))


if __name__ == "__main__":
    main(sys.argv[1:])
