"""Checks of an installation: each finds what it is for, and says what to do about it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from worldstereo_client import cli
from worldstereo_client.exit_codes import ExitCode

from configs.loader import load_model
from deployments import doctor
from tests.deployments.published import FakeGpus, published_model
from worldstereo.config import Variant
from worldstereo.models.attention_backend import attention_backends

DISTILLED: Variant = "worldstereo-memory-dmd"
TINY = load_model("worldstereo-tiny")


def test_doctor_finds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.REQUIRED, "engine", {"no_such_module": "no-such-distribution"})
    words = ["doctor", "--data", str(tmp_path), "--json"]
    result = CliRunner().invoke(cli.build_app(), words)
    assert result.exit_code == ExitCode.INSTALLATION
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert checks["no_such_module"]["state"] == "fails"
    assert "no-such-distribution" in checks["no_such_module"]["fix"]
    assert checks["av"]["state"] == checks["H.264"]["state"] == "ok"
    assert checks["base model"]["state"] == "ok"


def test_doctor_of_this_installation() -> None:
    code = "from worldstereo_client.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], capture_output=True, text=True
    )
    failing = [check for check in json.loads(done.stdout) if check["state"] == "fails"]
    assert (done.returncode, failing) == (0, []), done.stderr


def test_doctor_finds_a_cut_file(tmp_path: Path) -> None:
    model = tmp_path / "model.yaml"
    folder = tmp_path / "weights"
    (folder / "worldstereo-camera").mkdir(parents=True)
    (folder / "worldstereo-camera" / "model.safetensors").write_bytes(bytes(100))
    model.write_text(f"source: {folder}\nimage_features: worldstereo-tiny/dinov2\n")
    found = doctor.examine(str(model), "worldstereo-camera", 0, tmp_path)
    (weights,) = [check for check in found if check.group == "weights"]
    assert weights.state == "fails"
    assert "model.safetensors" in weights.detail
    assert "fetch-weights" in weights.fix


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((7, 5), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 0), ["sm_90a"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 0), ["sm_120"], True),
    ],
)
def test_which_gpus_a_torch_is_built_for(
    capability: tuple[int, int], built_for: list[str], runs: bool
) -> None:
    assert doctor.has_kernels_for(*capability, built_for) is runs


# Ranks


def test_a_model_on_the_cpu_has_one_replica_of_one_rank() -> None:
    found = doctor.topology_check(TINY, DISTILLED, FakeGpus(8, gib=None))
    assert (found.state, found.detail) == ("ok", "On the CPU: 1 replica of 1 rank.")


def test_replicas_and_ranks_of_this_machine_with_the_reason(tmp_path: Path) -> None:
    found = doctor.topology_check(published_model(tmp_path), DISTILLED, FakeGpus(8))
    assert (found.name, found.state) == ("topology", "ok")
    assert found.detail.startswith("8 GPUs of 139.8 GiB on 1 node; one replica needs ")
    assert "8 replicas of 1 rank" in found.detail
    set_to = published_model(tmp_path, parallel={"cfg": 2, "ulysses": 4})
    found = doctor.topology_check(set_to, "worldstereo-memory", FakeGpus(8))
    assert found.detail == "1 replica of 8 ranks (cfg 2 x ulysses 4): as set."


def test_gpus_on_which_nothing_fits_fail_with_the_fix(tmp_path: Path) -> None:
    found = doctor.topology_check(published_model(tmp_path), DISTILLED, FakeGpus(2, gib=23.5))
    assert found.state == "fails"
    assert "2 GPUs of 23.5 GiB on 1 node" in found.detail
    assert found.fix.startswith("hold the encoders (23.5 GiB a GPU) in bfloat16")
    assert found.fix not in found.detail


def test_ranks_that_the_model_does_not_allow_fail(tmp_path: Path) -> None:
    model = published_model(tmp_path, parallel={"ulysses": 3})
    found = doctor.topology_check(model, DISTILLED, FakeGpus(8))
    assert found.state == "fails"
    assert "parallel.ulysses" in found.detail
    assert "allowed: 1, 2, 4" in found.detail


def test_a_model_for_gpus_without_any_fails(tmp_path: Path) -> None:
    found = doctor.topology_check(published_model(tmp_path), DISTILLED, FakeGpus(0))
    assert found.state == "fails"
    assert "no GPU is there" in found.detail
    assert "worldstereo-tiny" in found.fix


def test_ranks_are_not_known_before_the_weights_are_there(tmp_path: Path) -> None:
    model = published_model(tmp_path, source=str(tmp_path / "base"))
    found = doctor.topology_check(model, DISTILLED, FakeGpus(8))
    assert found.state == "note"
    assert "once the weights are there" in found.detail


# Attention


def attention(name: str, **changes: object) -> doctor.Check:
    return doctor.attention_check(TINY.model_copy(update={"attention": name, **changes}))


@pytest.mark.parametrize("name", ["auto", "native"])
def test_attention_that_every_device_has(name: str) -> None:
    found = attention(name)
    assert (found.group, found.name, found.state) == ("engine", "attention", "ok")
    assert found.detail == name


def test_unknown_attention_fails_with_all_names() -> None:
    found = attention("flesh")
    assert (found.state, found.detail) == ("fails", "there is no 'flesh'")
    names = ", ".join(attention_backends())
    assert found.fix == f"set attention in the model's configuration to one of {names}"


@pytest.mark.parametrize(("name", "what"), [("_native_cudnn", "on a CPU"), ("fp8", "8-bit")])
def test_attention_of_a_gpu_fails_on_a_cpu(name: str, what: str) -> None:
    found = attention(name)
    assert found.state == "fails"
    assert what in found.detail
    assert found.fix


def test_attention_of_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "kernels", None)  # as if it were not there
    found = attention("_flash_3_hub", device="cuda")
    assert found.state == "fails"
    assert found.fix.startswith("pip install kernels, or set attention")


def test_attention_is_not_tried_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = attention("fp8", device="cuda")
    assert (found.state, found.detail) == ("note", "fp8: cannot be tried without a GPU")
