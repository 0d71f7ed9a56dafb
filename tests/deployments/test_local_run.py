"""Ranks from the command line, and what is refused or told before a cluster starts."""

import contextlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result
from worldstereo_client import cli, errors
from worldstereo_client.exit_codes import ExitCode

import cluster.local
from configs.loader import load_model
from configs.settings import AppArgs, ModelSettings
from deployments import local_run
from tests import scenes
from tests.cluster.full_size import layout
from tests.deployments.published import FakeGpus, published_model
from worldstereo.errors import ParameterError


class FakeCluster:
    """Stands for the embedded cluster: remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    @contextlib.contextmanager
    def __call__(self, **asked: Any) -> Iterator[Any]:
        self.asked = asked
        yield SimpleNamespace(
            url="http://127.0.0.1:8000",
            metrics_url="http://127.0.0.1:9/metrics",
            deploy=lambda application: None,
        )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(cluster.local, "LocalCluster", fake)
    monkeypatch.setattr(local_run, "catch_termination", lambda: None)
    return fake


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(local_run, "MachineGpus", lambda: FakeGpus(count))
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)


def told(args: AppArgs) -> str:
    """What the console says while a cluster for ``args`` starts and ends."""
    console = Console(file=StringIO(), width=200)
    with local_run.embedded_cluster(args, port=0, console=console):
        pass
    return console.file.getvalue()


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.build_app(), [str(word) for word in arguments])


def test_the_gpus_of_this_machine_decide_and_the_reason_is_told(
    tmp_path: Path, started: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 3)
    args = AppArgs(model=published_model(tmp_path), data_dir=tmp_path)
    lines = told(args).splitlines()
    assert lines[0].startswith("worldstereo-memory-dmd: 3 GPUs of 139.8 GiB on 1 node; ")
    assert "3 replicas of 1 rank" in lines[0]
    assert started.asked["num_gpus"] == 3


def test_a_cpu_is_told_too(tmp_path: Path, started: FakeCluster) -> None:
    assert "On the CPU: 1 replica of 1 rank." in told(AppArgs(data_dir=tmp_path))
    assert started.asked["num_gpus"] == 0


def test_more_ranks_than_gpus_are_refused(
    tmp_path: Path, started: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 1)
    model = published_model(tmp_path, parallel={"ulysses": 4})
    with pytest.raises(errors.MissingDependencyError, match="the model needs 4 GPUs") as caught:
        told(AppArgs(model=model, data_dir=tmp_path))
    assert caught.value.got == "1"
    assert started.asked == {}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((2, None, False), layout(2, 1)),
        ((None, 2, False), layout(1, 2)),
        ((2, 2, True), layout(2, 2, fsdp=True)),
        ((None, None, True), layout(fsdp=True)),
    ],
)
def test_flags_set_the_ranks(flags: tuple[int | None, int | None, bool], expected: object) -> None:
    model = local_run.with_layout("worldstereo-tiny", *flags)
    assert isinstance(model, ModelSettings)
    assert model.parallel == expected
    assert model.model_copy(update={"parallel": None}) == load_model("worldstereo-tiny")


def test_flags_change_what_they_name_alone() -> None:
    settings = load_model("worldstereo-tiny").model_copy(update={"parallel": layout(2, 2)})
    model = local_run.with_layout(settings, None, 4, False)
    assert isinstance(model, ModelSettings)
    assert model.parallel == layout(2, 4)
    assert local_run.with_layout(settings, None, None, False) is settings
    assert local_run.with_layout("worldstereo", None, None, False) == "worldstereo"


def test_flags_that_the_settings_contradict_are_refused(tmp_path: Path) -> None:
    model = published_model(tmp_path, precision="fp8")
    with pytest.raises(ParameterError, match=r"precision fp8 with parallel\.fsdp true"):
        local_run.with_layout(model, None, 2, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fsdp"], "parallel.fsdp: one rank has nobody to share the weights with"),
        (["--cfg", "2"], "parallel.cfg: this variant runs one pass a step"),
        (["--ulysses", "7"], "parallel.ulysses: "),
    ],
)
def test_ranks_that_cannot_be_are_refused_before_a_cluster_starts(
    tmp_path: Path, started: FakeCluster, flags: list[str], message: str
) -> None:
    scene = scenes.make_reconstruction(tmp_path / "kitchen")
    for words in (["run", scene], ["serve", "--port", "0"]):
        result = call(*words, *flags)
        assert result.exit_code == ExitCode.BAD_INPUT, result.output
        assert f"error: {message}" in result.stderr
        assert "allowed: " in result.stderr
        assert "Traceback" not in result.output
    assert started.asked == {}
