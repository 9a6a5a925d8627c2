"""A world of one's own in one file: guess a number between 1 and 20 in five tries.

PYTHONPATH=examples agentevolve run examples/guess.yaml --model local/smollm2-135m
"""

import random
from typing import Any

from agentevolve.protocols import Step
from agentevolve.records import Task


class Guess:
    """The number is drawn by the task's seed; each wrong guess is answered with "higher" or "lower"."""

    def reset(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Draw the number and say what is asked."""
        self.number = random.Random(f"{task.split} {task.seed}").randint(1, 20)
        self.tries = 0
        notes = "Guess my number between 1 and 20. You have five tries."
        return "I have a number.", {"actions": self.actions(), "score": 0.0, "notes": notes}

    def step(self, action: str) -> Step:
        """Answer one guess; anything that is no number is a wasted try."""
        self.tries += 1
        won = action == str(self.number)
        hint = "That is it!" if won else "That is not a number." if action not in self.actions() else self.hint(int(action))
        return Step(hint, float(won), won, self.tries >= 5 and not won, {"actions": self.actions(), "score": float(won)})

    def oracle(self, task: Task) -> list[str]:
        """The winning guess."""
        self.reset(task)
        return [str(self.number)]

    def close(self) -> None:
        """Nothing to give back."""

    def actions(self) -> list[str]:
        """Every number that may be guessed."""
        return [str(number) for number in range(1, 21)]

    def hint(self, guess: int) -> str:
        """Where the number lies, seen from a wrong guess."""
        return "It is higher." if guess < self.number else "It is lower."
