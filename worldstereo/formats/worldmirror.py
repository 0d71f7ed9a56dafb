"""The camera files that HY-World's WorldMirror reads: cameras.json and name_map.json.

Owns their names, order and arithmetic. Beware: the matrices under ``extrinsics`` are
world_from_camera there, the inverse of what a camera.json of a scene calls ``extrinsic``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np

from worldstereo.types import Float32

START_FRAMES = "pano_bank"


def camera_id(frame_id: str) -> str:
    """WorldMirror's name of a bank frame; its image is ``images/<camera_id>.png``.

    Args:
        frame_id: ``view/trajectory/frame``, ``pano_bank/<frame>`` or, in scenes of one start
            image, ``<view>/pano_bank/<file>``.

    Returns:
        ``pano-<frame>`` for start frames, else ``<view>-<trajectory>-<frame>``.
    """
    *folders, frame = _parts(frame_id)
    return "-".join(["pano" if folders[-1] == START_FRAMES else "-".join(folders), frame])


def _parts(frame_id: str) -> list[str]:
    *folders, frame = frame_id.split("/")
    assert folders, frame_id
    return [*folders, PurePosixPath(frame).stem]


def worldmirror_files(
    frames: Iterable[tuple[str, Float32, Float32]], scene_name: str
) -> tuple[str, str]:
    """The texts of cameras.json and name_map.json.

    Args:
        frames: of the memory in bank order: id, camera_from_world [4, 4], intrinsics [3, 3] in
            pixels of the frame's image.
        scene_name: what start frames are filed under in the name map.

    Returns:
        cameras.json in bank order, its matrices world_from_camera in float32; and name_map.json:
        ``<scene>/pano_bank/<frame>`` or ``<view>/<trajectory>/<frame>`` to the rank of the
        camera_id in sorted order, four digits, in that order.
    """
    frames = list(frames)
    ids = [camera_id(frame_id) for frame_id, _, _ in frames]
    assert len(set(ids)) == len(ids), "two frames of one name"
    inverses = float32_inverse(np.stack([matrix for _, matrix, _ in frames]))
    cameras = {
        "num_cameras": len(frames),
        "extrinsics": [
            {"camera_id": name, "matrix": matrix.astype(np.float64).tolist()}
            for name, matrix in zip(ids, inverses, strict=True)
        ],
        "intrinsics": [
            {"camera_id": name, "matrix": matrix.astype(np.float64).tolist()}
            for name, (_, _, matrix) in zip(ids, frames, strict=True)
        ],
    }
    places = {
        name: _place(frame_id, scene_name)
        for name, (frame_id, _, _) in zip(ids, frames, strict=True)
    }
    name_map = {places[name]: f"{rank:04d}" for rank, name in enumerate(sorted(ids))}
    return json.dumps(cameras, indent=2), json.dumps(name_map, indent=2)


def _place(frame_id: str, scene_name: str) -> str:
    *folders, frame = _parts(frame_id)
    if folders[-1] == START_FRAMES:
        return f"{scene_name}/{START_FRAMES}/{frame}"
    return "/".join([*folders, frame])


def float32_inverse(matrices: Float32) -> Float32:
    """Invert 4x4 matrices in float32, every rounding fixed: the same bits on every machine.

    LAPACK's last digits depend on the processor. This is Gaussian elimination with partial
    pivoting and fused multiply-adds, back substitution in blocks of two, multiplication by
    reciprocals: the order of the library that made the published files, which come out to the
    byte.

    Args:
        matrices: [N, 4, 4], regular.

    Returns:
        [N, 4, 4].
    """
    lower_upper, order = _factored(matrices)
    rows = np.eye(4, dtype=np.float32)[order]
    for i in range(1, 4):
        for k in range(i):
            rows[:, i] = rows[:, i] - lower_upper[:, i, k, None] * rows[:, k]
    for i in (3, 2, 1, 0):
        # The lower block's rows first, then the row of the own block.
        known = [k for k in (2, 3, 1) if k > i]
        total = np.zeros_like(rows[:, i])
        for k in known:
            total = _fused(total, lower_upper[:, i, k, None], rows[:, k])
        reciprocal = np.float32(1) / lower_upper[:, i, i, None]
        rows[:, i] = (rows[:, i] - total) * reciprocal
    return rows


def _factored(matrices: Float32) -> tuple[Float32, np.ndarray[tuple[int, int], np.dtype[np.intp]]]:
    """L below the diagonal and U on and above it of the permuted matrices, and their row order."""
    work = matrices.astype(np.float32)
    every = np.arange(len(work))
    order = np.tile(np.arange(4), (len(work), 1))
    for column in range(4):
        for row in range(1, 4):
            for k in range(min(row, column)):
                work[:, row, column] = _fused(
                    work[:, row, column], -work[:, row, k], work[:, k, column]
                )
        pivot = column + np.abs(work[:, column:, column]).argmax(axis=1)
        work[every, column], work[every, pivot] = work[every, pivot], work[every, column]
        order[every, column], order[every, pivot] = order[every, pivot], order[every, column]
        below = slice(column + 1, 4)
        work[:, below, column] *= np.float32(1) / work[:, column, column, None]
    return work, order


def _fused(total: Float32, left: Float32, right: Float32) -> Float32:
    """``total + left * right`` with one rounding: float64 holds products of float32 exactly."""
    exact = total.astype(np.float64) + left.astype(np.float64) * right.astype(np.float64)
    return exact.astype(np.float32)
