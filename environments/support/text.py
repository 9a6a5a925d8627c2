"""Text between a game and an agent, the same for every game."""

from __future__ import annotations

import re


def tidy(text: str) -> str:
    """The text with one blank between words and no empty lines."""
    return re.sub(r" ?\n[\n ]*", "\n", re.sub(r"[ \t]+", " ", text)).strip()


def one_line(action: str) -> str:
    """The action's first 200 characters as one printable line that any encoding takes."""
    line = "".join(char if char.isprintable() else " " for char in action[:200])
    return " ".join(line.encode("utf-8", "replace").decode().split())
