"""The networks that estimate depth, by name. Imports none of them before one is asked for."""

from __future__ import annotations

from typing import Literal, get_args

from worldstereo.depth.protocol import DepthSource
from worldstereo.errors import ParameterError

EstimatorName = Literal["moge", "depth_pro"]

ESTIMATORS: tuple[EstimatorName, ...] = get_args(EstimatorName)


def load_estimator(
    name: EstimatorName,
    *,
    source: str | None = None,
    device: str = "cpu",
    local_files_only: bool = False,
) -> DepthSource:
    """Load a network that estimates depth in metres and the camera's intrinsics.

    Args:
        name: ``moge`` (MoGe-2, which needs the package moge) or ``depth_pro`` (Depth Pro, which
            needs nothing beside this installation).
        source: where the weights are, see ``MogeDepth.from_pretrained`` and
            ``DepthPro.from_pretrained``; None: the published repository.
        device: torch device that the network runs on, such as ``cuda``.
        local_files_only: never ask the Hub.

    Raises:
        ParameterError: no estimator has this name.
        MissingDependencyError: the estimator's package is not installed.
        CheckpointError: its weights cannot be found or read.
    """
    if name == "moge":
        from worldstereo.depth.moge import PUBLISHED_MOGE, MogeDepth

        return MogeDepth.from_pretrained(
            source or PUBLISHED_MOGE, device=device, local_files_only=local_files_only
        )
    if name == "depth_pro":
        from worldstereo.depth.depth_pro import PUBLISHED_DEPTH_PRO, DepthPro

        return DepthPro.from_pretrained(
            source or PUBLISHED_DEPTH_PRO, device=device, local_files_only=local_files_only
        )
    raise ParameterError(
        "no depth estimator has this name",
        where="depth estimator",
        got=repr(name),
        allowed=", ".join(ESTIMATORS),
        fix="or give the depth of the image as a file",
    )
