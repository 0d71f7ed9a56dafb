"""Estimators by name, and what importing them costs."""

import subprocess
import sys

import pytest

from worldstereo.depth.estimators import ESTIMATORS, load_estimator
from worldstereo.errors import ParameterError


def test_an_unknown_name_is_answered_with_the_known_ones():
    assert ESTIMATORS == ("moge", "depth_pro")
    with pytest.raises(ParameterError, match=r"got 'midas'; allowed: moge, depth_pro"):
        load_estimator("midas")


def test_importing_the_names_loads_no_network():
    code = (
        "import sys, worldstereo.depth.estimators, worldstereo.depth.provided\n"
        "print(sorted({'torch', 'transformers', 'moge', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
