"""`worldstereo run` refuses every folder of the table: exit code 2, one line, no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner
from worldstereo_client import cli
from worldstereo_client.exit_codes import ExitCode

from deployments import local_run
from tests.formats.bad_scenes import CASES, BadScene


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_it_is_refused_before_anything_is_started(
    bad: BadScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*arguments: object, **options: object) -> None:
        pytest.fail("a cluster was started")

    monkeypatch.setattr(local_run, "embedded_cluster", start)
    monkeypatch.setattr(local_run, "catch_termination", lambda: None)
    words = ["run", str(bad.build(tmp_path)), "--output_path", str(tmp_path / "out")]
    for name, value in bad.arguments.items():
        words += [f"--{name}", str(tmp_path / value if isinstance(value, Path) else value)]
    result = CliRunner().invoke(cli.build_app(), words)
    assert result.exit_code == ExitCode.BAD_INPUT, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    if bad.error.__name__ != "ParameterError":  # some are refused by the request's own rules
        for part in bad.mentions:
            assert " ".join(part.split()) in line
    assert not (tmp_path / "out").exists()
