"""An embedded cluster in the tests' own process, and what Ray leaves in it."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.local import LocalCluster


@contextmanager
def running_cluster(
    kind: type[LocalCluster] = LocalCluster, **resources: Any
) -> Iterator[LocalCluster]:
    """A cluster for the block. Ray's own objects of it are collected at its end.

    Ray never closes some of its sockets and event loops; whatever test runs when the collector
    finds them would be the one that fails.
    """
    try:
        with kind(**resources) as cluster:
            yield cluster
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.set_event_loop(None)  # Serve sets one of its own where none runs
            gc.collect()
