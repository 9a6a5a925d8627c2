"""The courses of evolutions side by side: `python tests/bench/rounds.py NAME=RUN… [--picture FILE]`.

For each run (all its seeds) and round, what was in place: success with its interval, how many different actions it took, tokens
of all attempts for each that was solved. The table is Markdown.
"""

import sys
from pathlib import Path

from agentevolve.evaluate import learning_curve
from agentevolve.evaluate.table import percent
from agentevolve.loop.course import course, in_place
from agentevolve.run.folder import read_run, seeds


def main(words: list[str]) -> None:
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
