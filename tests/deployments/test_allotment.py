"""What each variant gets of a cluster's GPUs: what is set, what is chosen, and what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.settings import (
    AppArgs,
    AutoscalingSettings,
    DepthSettings,
    GeneratorSettings,
    ModelSettings,
    ReconstructorSettings,
)
from deployments.allotment import Allotment, allot
from tests.cluster.full_size import layout
from tests.deployments.published import FakeGpus, published_model
from worldstereo.config import Variant
from worldstereo.errors import CheckpointError, ParameterError
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.reconstruction.splats import SplatParameters

CAMERA: Variant = "worldstereo-camera"
GUIDED: Variant = "worldstereo-memory"
DISTILLED: Variant = "worldstereo-memory-dmd"
A6000, A100 = 47.4, 39.4  # GiB


class NobodyLooks:
    """GPUs that must not be looked for."""

    def per_node(self) -> tuple[int, ...]:
        pytest.fail("looked for GPUs")

    def bytes_each(self) -> int:
        pytest.fail("looked for GPUs")


def allotted(
    model: ModelSettings, gpus: Any, *variants: Variant, **args: Any
) -> dict[Variant, Allotment]:
    return allot(AppArgs(model=model, variants=variants or (DISTILLED,), **args), model, gpus)


def only(found: dict[Variant, Allotment]) -> tuple[int, ParallelLayout, bool]:
    (item,) = found.values()
    return item.replicas, item.layout, item.one_node


def replicas(count: int) -> GeneratorSettings:
    return GeneratorSettings(replicas=count)


# Chosen


@pytest.mark.parametrize(
    ("gpus", "variant", "generator", "expected"),
    [
        # Nothing is set: as many replicas as there are GPUs.
        (FakeGpus(1), DISTILLED, GeneratorSettings(), (1, layout(), True)),
        (FakeGpus(8), DISTILLED, GeneratorSettings(), (8, layout(), True)),
        (FakeGpus(0, 4, 2), GUIDED, GeneratorSettings(), (6, layout(), True)),
        # Replicas are set: what is left goes into ranks.
        (FakeGpus(8), DISTILLED, replicas(8), (8, layout(), True)),
        (FakeGpus(8), DISTILLED, replicas(4), (4, layout(1, 2), True)),
        (FakeGpus(8), DISTILLED, replicas(1), (1, layout(1, 4), True)),
        (FakeGpus(8), GUIDED, replicas(1), (1, layout(2, 4), True)),
        (FakeGpus(2), GUIDED, replicas(1), (1, layout(2, 1), True)),
        # More are set than there is room for: so be it.
        (FakeGpus(2), DISTILLED, replicas(3), (3, layout(), True)),
        # They follow the load: the most count.
        (
            FakeGpus(8),
            DISTILLED,
            GeneratorSettings(autoscaling=AutoscalingSettings(min_replicas=0, max_replicas=4)),
            (4, layout(1, 2), True),
        ),
        # One GPU is too small: whole replicas on a node, else over nodes.
        (FakeGpus(4, gib=A6000), GUIDED, GeneratorSettings(), (1, layout(2, 2, fsdp=True), True)),
        (
            FakeGpus(2, 2, gib=A6000),
            GUIDED,
            GeneratorSettings(),
            (1, layout(2, 2, fsdp=True), False),
        ),
    ],
)
def test_what_is_chosen_for_one_variant(
    tmp_path: Path,
    gpus: FakeGpus,
    variant: Variant,
    generator: GeneratorSettings,
    expected: tuple[int, ParallelLayout, bool],
) -> None:
    found = allotted(published_model(tmp_path), gpus, variant, generator=generator)
    assert only(found) == expected, found


def test_the_reason_says_what_there_is_and_what_was_asked(tmp_path: Path) -> None:
    model = published_model(tmp_path)
    reason = allotted(model, FakeGpus(8))[DISTILLED].reason
    assert reason.startswith("8 GPUs of 139.8 GiB on 1 node; one replica needs ")
    assert "8 replicas of 1 rank for 8 clips" in reason
    reason = allotted(model, FakeGpus(2), generator=replicas(3))[DISTILLED].reason
    assert reason.endswith(" Asked for are 3.")


def test_variants_share_the_gpus(tmp_path: Path) -> None:
    model = published_model(tmp_path)
    found = allotted(model, FakeGpus(8), CAMERA, GUIDED, DISTILLED, generator=replicas(1))
    assert {name: item.layout for name, item in found.items()} == {
        CAMERA: layout(2, 1),
        GUIDED: layout(2, 1),
        DISTILLED: layout(1, 2),
    }
    found = allotted(model, FakeGpus(8), GUIDED, DISTILLED)
    assert [item.replicas for item in found.values()] == [4, 4]
    with pytest.raises(ParameterError) as caught:
        allotted(model, FakeGpus(1), GUIDED, DISTILLED)
    assert (caught.value.where, caught.value.got) == (
        "variants",
        "worldstereo-memory, worldstereo-memory-dmd on 1 GPU",
    )
    assert "fewer variants" in str(caught.value.fix)


def test_other_parts_keep_their_gpus(tmp_path: Path) -> None:
    model = published_model(tmp_path)
    depth = DepthSettings(device="cuda", num_gpus=0.5)
    splats = ReconstructorSettings(splats=SplatParameters(), num_gpus=1)
    found = allotted(model, FakeGpus(8), depth=depth, reconstructor=splats)
    assert only(found) == (6, layout(), True)
    with pytest.raises(ParameterError, match="on 1 GPU, 1 of them for depth and reconstructor"):
        allotted(model, FakeGpus(1), depth=depth)


def test_the_memory_may_be_set(tmp_path: Path) -> None:
    model = published_model(tmp_path, gpu_memory_gib=A6000)
    assert only(allotted(model, FakeGpus(4, gib=None), GUIDED))[1].fsdp


def test_encoders_in_half_the_memory_leave_room(tmp_path: Path) -> None:
    gpus = FakeGpus(2, gib=A100)
    with pytest.raises(ParameterError, match="in bfloat16"):
        allotted(published_model(tmp_path), gpus)
    model = published_model(tmp_path, encoder_precision="bfloat16")
    # The condition mode that takes more memory: one GPU more than the tests of the choice have.
    with pytest.raises(ParameterError, match="larger GPUs"):
        allotted(model, FakeGpus(1, gib=A100))
    assert only(allotted(model, FakeGpus(4, gib=A6000)))[1].fsdp


def test_weights_in_8_bits_are_never_sharded(tmp_path: Path) -> None:
    assert only(allotted(published_model(tmp_path), FakeGpus(4, gib=A6000)))[1].fsdp
    with pytest.raises(ParameterError, match="a replica needs"):
        allotted(published_model(tmp_path, precision="fp8"), FakeGpus(4, gib=A6000))
    model = published_model(tmp_path, precision="fp8")
    assert only(allotted(model, FakeGpus(4), generator=replicas(1))) == (1, layout(1, 4), True)


# Set


def test_a_cpu_has_one_rank_and_nobody_looks_for_gpus(tmp_path: Path) -> None:
    tiny = ModelSettings(source="worldstereo-tiny", image_features="x")
    found = allotted(tiny, NobodyLooks())
    assert only(found) == (1, layout(), True)
    assert found[DISTILLED].reason == "On the CPU: 1 replica of 1 rank."
    two = tiny.model_copy(update={"parallel": layout(1, 2)})
    assert only(allotted(two, NobodyLooks(), generator=replicas(3))) == (3, layout(1, 2), True)
    # No file is read for a rank that shares with nobody.
    nowhere = ModelSettings(source=str(tmp_path), image_features="x")
    assert only(allotted(nowhere, NobodyLooks())) == (1, layout(), True)


@pytest.mark.parametrize(
    ("gpus", "generator", "expected"),
    [
        (FakeGpus(8, gib=None), GeneratorSettings(), (4, True)),
        (FakeGpus(8, gib=None), replicas(1), (1, True)),
        (FakeGpus(1, 1, gib=None), GeneratorSettings(), (1, False)),
        (FakeGpus(0, gib=None), GeneratorSettings(), (1, True)),
        (FakeGpus(gib=None), replicas(2), (2, True)),
    ],
)
def test_ranks_that_are_set_stay(
    tmp_path: Path, gpus: FakeGpus, generator: GeneratorSettings, expected: tuple[int, bool]
) -> None:
    model = published_model(tmp_path, parallel={"ulysses": 2})
    found = allotted(model, gpus, generator=generator)
    count, ranks, one_node = only(found)
    assert (count, one_node) == expected
    assert ranks == layout(1, 2)
    assert found[DISTILLED].reason.endswith("of 2 ranks (cfg 1 x ulysses 2): as set.")


def test_a_cluster_whose_gpus_are_still_to_come(tmp_path: Path) -> None:
    found = allotted(published_model(tmp_path), FakeGpus(0), GUIDED, DISTILLED)
    assert {(item.replicas, item.layout) for item in found.values()} == {(1, layout())}
    assert found[GUIDED].reason == "1 replica of 1 rank: no GPU is there yet to choose by."


def test_workers_with_part_of_a_gpu_are_one_rank_each(tmp_path: Path) -> None:
    model = published_model(tmp_path, worker_num_gpus=0.5)
    depth = DepthSettings(device="cuda", num_gpus=0.5)
    found = allotted(model, FakeGpus(1, gib=None), depth=depth)
    assert only(found) == (1, layout(), True)
    assert "worker_num_gpus is 0.5" in found[DISTILLED].reason


@pytest.mark.parametrize(
    ("parallel", "variant", "where", "allowed"),
    [
        ({"ulysses": 3}, DISTILLED, "parallel.ulysses", "1, 2, 4"),
        ({"ulysses": 8}, DISTILLED, "parallel.ulysses", "1, 2, 4"),
        ({"cfg": 2}, DISTILLED, "parallel.cfg", "1"),
        ({"fsdp": True}, GUIDED, "parallel.fsdp", "false, or more ranks: cfg x ulysses > 1"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_a_model_cannot_be_run_in_is_refused(
    tmp_path: Path,
    device: str,
    parallel: dict[str, Any],
    variant: Variant,
    where: str,
    allowed: str,
) -> None:
    num_gpus = 1 if device == "cuda" else 0
    model = published_model(tmp_path, device=device, worker_num_gpus=num_gpus, parallel=parallel)
    with pytest.raises(ParameterError) as caught:
        allotted(model, FakeGpus(8), variant)
    assert (caught.value.where, caught.value.allowed) == (where, allowed)


def test_sizes_that_are_not_there_are_told(tmp_path: Path) -> None:
    model = published_model(tmp_path)
    (tmp_path / "base/transformer/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"base/transformer/config\.json"):
        allotted(model, FakeGpus(8))


def test_choosing_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, deployments.allotment; "
        "heavy = {'torch', 'ray', 'diffusers'} & sys.modules.keys(); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
