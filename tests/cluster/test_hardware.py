"""GPUs of a machine as torch tells them, and of a cluster's nodes as Ray does."""

from types import SimpleNamespace

import pytest
import torch

from cluster import hardware
from cluster.hardware import ClusterGpus, MachineGpus
from cluster.topology import GIB
from worldstereo.errors import ParameterError

HEAD = {"CPU": 8.0, "memory": 1e9, "node:__internal_head__": 1.0}


def node(gpus: float, kind: str | None = None) -> dict[str, float]:
    named = {f"accelerator_type:{kind}": 1.0} if kind else {}
    return {"CPU": 16.0, "GPU": gpus, **named}


@pytest.fixture
def no_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def seen_here(monkeypatch: pytest.MonkeyPatch, *gib: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gib))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(total_memory=int(gib[index] * GIB)),
    )


def test_a_machine_is_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    seen_here(monkeypatch, 80, 48)
    assert MachineGpus().per_node() == (2,)
    assert MachineGpus().bytes_each() == 48 * GIB


@pytest.mark.usefixtures("no_gpu_here")
def test_a_machine_without_gpus() -> None:
    assert (MachineGpus().per_node(), MachineGpus().bytes_each()) == ((0,), 0)


@pytest.mark.usefixtures("no_gpu_here")
def test_nodes_tell_their_type() -> None:
    gpus = ClusterGpus([HEAD, node(8, "H200"), node(4, "H100")])
    assert gpus.per_node() == (0, 8, 4)
    assert gpus.bytes_each() == int(79.1 * GIB)


def test_what_this_process_sees_goes_before_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    seen_here(monkeypatch, 79.2)  # Ray names both sizes of an A100 alike
    assert ClusterGpus([node(1, "A100")]).bytes_each() == int(79.2 * GIB)


@pytest.mark.usefixtures("no_gpu_here")
@pytest.mark.parametrize(
    ("nodes", "got"),
    [
        ([HEAD, node(2, "H200"), node(2, "H900")], "H900"),
        ([HEAD, node(2)], "that Ray does not name"),
    ],
)
def test_a_type_of_unknown_memory_is_refused(nodes: list[dict[str, float]], got: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ClusterGpus(nodes).bytes_each()
    assert caught.value.where == "gpu_memory_gib"
    assert caught.value.got == f"GPUs of type {got}"
    assert "H200" in str(caught.value.allowed)
    assert "set gpu_memory_gib" in str(caught.value.fix)


def test_rays_names_are_those_of_ray() -> None:
    from ray.util.accelerators import accelerators

    known = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}
    assert hardware.MEMORY_GIB.keys() <= known


def test_dead_nodes_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": alive, "Resources": node(2, "H100")} for alive in (True, False)]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert ClusterGpus.of_running_cluster().per_node() == (2,)
