"""Several servers of one model: a task keeps to one, whose cache then has its prompts; one that fails is left out for a while.

Rendezvous hashing (Thaler & Ravishankar 1998) puts the servers in an order of each task's own, so that one server more or less
moves only the tasks that are its own; as in consistent hashing with bounded loads (Mirrokni et al., 1608.01350), the first in it
that has room is asked: it has, while it has at most a quarter more calls under way than its even share.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SLACK = 1.25
REST = 5.0  # seconds for which a server that failed is not asked, doubled at each failure in a row
LONGEST = 300.0


def addresses(api_base: str | None) -> list[str]:
    """The addresses in a setting: one, or several with commas between."""
    return [one.strip() for one in (api_base or "").split(",") if one.strip()]


class Addresses:
    """The addresses of servers that answer alike. Safe to use from several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(urls)
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._until: dict[str, float] = dict.fromkeys(urls, 0.0)

    @contextmanager
    def one(self, task: str) -> Iterator[str]:
        """The address to ask for a task, while one call is under way; "" where there are none."""
        if not self.urls:
            yield ""
            return
        with self._lock:
            url = self._chosen(task)
            self._calls[url] += 1
        try:
            yield url
        finally:
            with self._lock:
                self._calls[url] -= 1

    def failed(self, url: str) -> None:
        """Leave a server out for a while: it did not answer."""
        if url not in self._until:
            return
        with self._lock:
            self._until[url] = time.monotonic() + min(LONGEST, REST * 2.0 ** self._failures[url])
            self._failures[url] += 1

    def answered(self, url: str) -> None:
        """A server is well."""
        with self._lock:
            self._failures[url] = 0

    def _chosen(self, task: str) -> str:
        now = time.monotonic()
        well = [url for url in self.urls if self._until[url] <= now] or list(self.urls)
        share = math.ceil(SLACK * (sum(self._calls[url] for url in well) + 1) / len(well))
        order = sorted(well, key=lambda url: hashlib.sha256(f"{url} {task}".encode("utf-8", "surrogatepass")).digest())
        return next(url for url in order if self._calls[url] < share)
