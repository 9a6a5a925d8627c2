"""Which of the nearest entries are taken: words beside meaning, and difference beside nearness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentevolve.memory.embed import Vectors

FLAT = 60  # of reciprocal rank fusion, as in Cormack et al. 2009


class Words:
    """BM25 over texts with ids, by the library bm25s."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        import bm25s

        self._bm25s, self._ids = bm25s, list(texts)
        self._index = bm25s.BM25()
        if texts:
            self._index.index(self._tokens(list(texts.values())), show_progress=False)

    def ranked(self, query: str, n: int) -> list[str]:
        """The ids of at most `n` texts that share a word with `query`, the best first."""
        n = min(n, len(self._ids))
        if not n:
            return []
        places, scores = self._index.retrieve(self._tokens([query]), k=n, show_progress=False)
        hits = [
            (-round(float(score), 6), self._ids[place]) for place, score in zip(places[0], scores[0], strict=True) if score > 0
        ]
        return [id for _, id in sorted(hits)]

    def _tokens(self, texts: list[str]) -> object:
        return self._bm25s.tokenize(texts, token_pattern=r"\w+", stopwords=None, show_progress=False)


def fused(*rankings: Sequence[str]) -> list[str]:
    """One order of several, by reciprocal rank fusion; equals by their ids."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for place, id in enumerate(ranking, 1):
            scores[id] = scores.get(id, 0.0) + 1 / (FLAT + place)
    return sorted(scores, key=lambda id: (-scores[id], id))


def differing(nearness: Sequence[float], vectors: Vectors, k: int, difference: float) -> list[int]:
    """The places of `k` rows by maximal marginal relevance (Carbonell & Goldstein, 1998).

    Taken one by one: the row with the greatest (1 - difference) · nearness - difference · (cosine to the likest row taken); the
    first of equals. `vectors` are unit rows, (n, dim).
    """
    import numpy as np

    near, taken = np.asarray(nearness, np.float64), list[int]()
    likest = np.full(len(near), -1.0)
    while len(taken) < min(k, len(near)):
        score = near if not taken else (1 - difference) * near - difference * likest
        score = np.where(np.isin(np.arange(len(near)), taken), -np.inf, score)
        taken.append(int(score.argmax()))
        likest = np.maximum(likest, np.einsum("ij,j->i", vectors, vectors[taken[-1]]))
    return taken
