"""A memory's folder: its files, what `memory.json` says about it, and that one process at a time has it for writing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from agentevolve.memory.embed import Embedder
from agentevolve.protocols import AgentevolveError
from agentevolve.run.lock import LOCK, Lock, lock

FORMAT = 1
ABOUT, JOURNAL, INDEX, DRAFT = "memory.json", "entries.jsonl", "chroma", "memory.json.new"


def prepare(folder: Path, embedder: Embedder, create: bool) -> Lock:
    """Lock the memory in `folder` for this process, making it first if `create` and there is nothing; return the lock.

    Raises AgentevolveError when the folder holds something else, cannot be written, or is open elsewhere.
    """
    try:
        if not (folder / ABOUT).is_file() and not (create and _is_vacant(folder)):
            raise not_a_memory(folder)
        held = lock(folder)
        try:
            if not (folder / ABOUT).is_file():
                _write_about(folder, embedder)
        except BaseException:
            held.release()
            raise
    except OSError as error:
        raise AgentevolveError(f"memory {folder}: cannot write: {error.strerror or error}") from None
    return held


def about(folder: Path) -> dict[str, str]:
    """What `memory.json` says: `embedding_model` and `embedding_identity`."""
    path = folder / ABOUT
    try:
        if not path.is_file():
            raise not_a_memory(folder)
        said = path.read_bytes()
    except OSError as error:
        raise AgentevolveError(f"{path}: cannot read: {error.strerror or error}") from None
    try:
        match json.loads(said):
            case {"format": int() as version} if version != FORMAT:
                raise AgentevolveError(f"{path}: format: {version} is not known; this version reads format {FORMAT}")
            case {"embedding_model": str() as model, "embedding_identity": str() as identity}:
                return {"embedding_model": model, "embedding_identity": identity}
    except ValueError:
        pass
    raise AgentevolveError(f"{path}: damaged: expected the fields format, embedding_model and embedding_identity")


def memory_folder(place: Path, seed: int | None = None) -> Path:
    """The memory at `place`: a memory folder, or a run that has one, with several seeds that of `seed`."""
    runs = [place] if seed is None else [place, place / f"seed-{seed}"]
    for folder in [place, *(run / "memory" for run in runs)]:
        if (folder / ABOUT).is_file():
            return folder
    raise AgentevolveError(f"{place}: neither a memory folder nor a run with one: there is no {ABOUT}")


def check_model(folder: Path, embedder: Embedder) -> None:
    """Raise AgentevolveError when the memory was made with another embedding model."""
    said = about(folder)
    made, given = (said["embedding_model"], said["embedding_identity"]), (embedder.name, embedder.identity)
    if made != given:
        raise AgentevolveError(
            f"{folder / ABOUT}: embedding_model: this memory was made with {made[0]} ({made[1]}) "
            f"and cannot be searched with {given[0]} ({given[1]})"
        )


def not_a_memory(folder: Path) -> AgentevolveError:
    """The error for a folder that is no memory, saying why."""
    why = f"it has no {ABOUT}" if folder.is_dir() else "it is not a folder" if folder.exists() else "it does not exist"
    return AgentevolveError(f"{folder}: not a memory: {why}")


def _is_vacant(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK, DRAFT})


def _write_about(folder: Path, embedder: Embedder) -> None:
    said = {"format": FORMAT, "embedding_model": embedder.name, "embedding_identity": embedder.identity}
    (folder / DRAFT).write_text(json.dumps(said, indent=2) + "\n", "utf-8")
    os.replace(folder / DRAFT, folder / ABOUT)
