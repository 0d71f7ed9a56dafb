"""``worldstereo evaluate --synthetic`` with a real embedded cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from worldstereo_client.exit_codes import ExitCode

from tests.client.test_embedded import START_TIMEOUT_S, command
from tests.miniature import miniature_settings

pytest.importorskip("evo")
pytestmark = pytest.mark.cluster


def test_a_scene_with_photographs_is_generated_from_them_and_scored(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    words = ("--synthetic", "1", "--photographs", "4", "--steps", "1")
    model = miniature_settings(tmp_path)
    done = subprocess.run(
        command("evaluate", *words, "--model", model, "--json", out),
        capture_output=True,
        text=True,
        timeout=2 * START_TIMEOUT_S,
    )
    assert done.returncode == ExitCode.OK, done.stderr
    report = json.loads(out.read_text())
    assert report["settings"]["photographs"] == 4
    # Clips that mean nothing may give no points; all clips must be there.
    assert {failure["what"] for failure in report["failures"]} <= {"points.ply"}
    (scene,) = report["scenes"]
    by_name = {clip["id"].partition("/")[2]: clip for clip in scene["clips"]}
    assert list(by_name) == ["traj_eloop", "traj_up", "traj_right", "traj_left"]
    for name, photograph in (("traj_right", "0001"), ("traj_left", "0002"), ("traj_up", "0003")):
        clip = by_name[name]
        assert f"pano_bank/{photograph}" in clip["references"]
        assert clip["references_from"] == "worldstereo-memory-dmd"
        assert clip["seen_hole_share"] > 0.5 * clip["hole_share"] > 0
        assert clip["images"]["worldstereo-memory-dmd"]["seen holes"]["psnr"] > 0
