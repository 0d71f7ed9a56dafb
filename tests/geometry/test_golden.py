"""The project's own copy of the recorded numbers."""

from pathlib import Path

import pytest

import tests.golden
from tests.golden import check_cameras, check_rendering
from tests.golden.report import Case, Options

GOLDEN = Path(tests.golden.__file__).parent
CASES = [
    *check_cameras.check_cameras(GOLDEN / "cameras", Options()),
    *check_cameras.check_tables(GOLDEN / "cameras", Options()),
    *check_rendering.check(GOLDEN / "rendering", Options()),
]


def test_there_are_cases_of_every_kind():
    names = " ".join(case.name for case in CASES)
    for kind in ("centered", "unified", "quaternion", "plucker", "keyframes", "points", "rgb"):
        assert kind in names


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Case):
    assert case.passed, str(case)
