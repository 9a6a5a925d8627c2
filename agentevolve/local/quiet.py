"""Keeping transformers off the terminal: the progress bars shown are ours."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers on the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # trl and transformers about each other's option names
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
