"""Loading through transformers without its progress bars, which would litter logs and terminals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """What transformers loads inside the block shows no bar; afterwards all is as it was.

    The bars belong to the process: what another thread loads meanwhile shows none either.
    """
    from transformers.utils import logging

    def disabled(bar: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> Any:
        return bar(*positional, **{**named, "disable": True})

    before = logging.set_tqdm_hook(disabled)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)
