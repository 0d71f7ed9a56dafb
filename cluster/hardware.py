"""Finding out which GPUs there are: on this machine, or on the nodes of the Ray cluster that runs.

Owns the look at torch and Ray, each imported when it is asked. A cluster's GPUs are taken to be
alike. Leaves to others: what is made of it (topology.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from cluster.topology import GIB
from worldstereo.errors import ParameterError

# GiB that torch reports of the types that Ray names; the smaller where a type comes in two sizes.
MEMORY_GIB = {
    "T4": 14.5,
    "V100": 15.7,
    "A10G": 22.0,
    "L4": 22.0,
    "L40S": 44.4,
    "A100": 39.4,
    "H20": 95.0,
    "H100": 79.1,
    "H200": 139.8,
    "B200": 178.3,
}
_TYPE = "accelerator_type:"


class Gpus(Protocol):
    """The GPUs that there are."""

    def per_node(self) -> tuple[int, ...]:
        """How many each node has."""
        ...

    def bytes_each(self) -> int:
        """Memory of the smallest; ParameterError where nothing tells it."""
        ...


class MachineGpus:
    """Those that torch sees on this machine, as one node."""

    def per_node(self) -> tuple[int, ...]:
        """One number: how many there are."""
        return (len(_seen_by_torch()),)

    def bytes_each(self) -> int:
        """Memory of the smallest, in bytes; 0 where there is none."""
        return min(_seen_by_torch(), default=0)


class ClusterGpus:
    """Those of a Ray cluster.

    Args:
        nodes: resources of each node that lives, by Ray's names.
    """

    def __init__(self, nodes: Sequence[Mapping[str, float]]) -> None:
        self._nodes = nodes

    @classmethod
    def of_running_cluster(cls) -> Self:
        """Of the cluster that this process is connected to."""
        import ray

        return cls([node["Resources"] for node in ray.nodes() if node["Alive"]])

    def per_node(self) -> tuple[int, ...]:
        """How many each node has, whoever uses them now."""
        return tuple(int(node.get("GPU", 0)) for node in self._nodes)

    def bytes_each(self) -> int:
        """Of the smallest that this process sees, else of the smallest type that Ray names."""
        here = _seen_by_torch()
        return min(here) if here else int(min(map(_gib_of, self._types())) * GIB)

    def _types(self) -> set[str]:
        with_gpus = [node for node in self._nodes if node.get("GPU", 0)]
        named = {name for node in with_gpus for name in node if name.startswith(_TYPE)}
        return {name.removeprefix(_TYPE) for name in named} or {"that Ray does not name"}


def _gib_of(name: str) -> float:
    if name not in MEMORY_GIB:
        raise ParameterError(
            "the memory of the cluster's GPUs is not known",
            where="gpu_memory_gib",
            got=f"GPUs of type {name}",
            allowed=f"types {', '.join(MEMORY_GIB)}",
            fix="set gpu_memory_gib in the model's configuration, or parallel, which is chosen by "
            "it",
        )
    return MEMORY_GIB[name]


def _seen_by_torch() -> list[int]:
    """Bytes of memory of each GPU that this process sees."""
    import torch

    if not torch.cuda.is_available():
        return []
    devices = range(torch.cuda.device_count())
    return [torch.cuda.get_device_properties(index).total_memory for index in devices]
