"""The package textworld keeps one parser for all in its modules: whoever reads or plays its games in this process takes turns."""

from __future__ import annotations

import threading

LOCK = threading.RLock()
