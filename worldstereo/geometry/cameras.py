"""Camera matrices as the model is conditioned on them: normalised, inverted, as quaternions.

Owns the normalisation of a clip's cameras ("centered"), of a clip's cameras together with its
references ("unified"), and the rows ``camera_qt``. Rays are made in rays.py; whether a matrix
that a user gave is rigid is decided by the readers in formats/.

All functions take ``camera_from_world`` (w2c, OpenCV axes) as float tensors on any device,
compute in float64 and return float32: the clip's cameras are few, and translations are scaled
up by the last step, so that float32 would lose digits for no gain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldstereo.errors import CameraError

# |first camera's centre| after normalisation; the released weights were trained with it.
CAMERA_SCALE = 2.0
# A first camera nearer to the mean than this leaves the scale to CAMERA_SCALE alone.
SMALLEST_CENTER = 1e-5
# A camera farther from the median than OUTLIER_FACTOR x the OUTLIER_QUANTILE of these distances,
# or than OUTLIER_LIMIT, does not count in the mean.
OUTLIER_FACTOR, OUTLIER_QUANTILE, OUTLIER_LIMIT = 10.0, 0.97, 1e6


def check_cameras(camera_from_world: Tensor, name: str = "camera_from_world") -> None:
    """Refuse cameras that are no finite 4x4 matrices, and say which frame is at fault.

    Args:
        camera_from_world: [N, 4, 4], N >= 1.
        name: what to call them in the message.

    Raises:
        CameraError: the shape is another one, or a frame holds NaN or infinity.
    """
    _check_matrices(camera_from_world, name, 4)


def check_intrinsics(intrinsics: Tensor, name: str = "intrinsics") -> None:
    """Refuse intrinsics that are no finite 3x3 matrices, and say which frame is at fault.

    Args:
        intrinsics: [N, 3, 3], N >= 1.
        name: what to call them in the message.

    Raises:
        CameraError: the shape is another one, or a frame holds NaN or infinity.
    """
    _check_matrices(intrinsics, name, 3)


def _check_matrices(matrices: Tensor, name: str, size: int) -> None:
    shape = tuple(matrices.shape)
    if len(shape) != 3 or shape[1:] != (size, size) or shape[0] == 0:
        raise CameraError(
            "camera matrices of an unusable shape",
            where=name,
            got=str(list(shape)),
            allowed=f"[frames, {size}, {size}] with at least one frame",
        )
    finite = torch.isfinite(matrices).all(-1).all(-1)
    if not bool(finite.all()):
        frame = int((~finite).nonzero()[0, 0])
        entries = [f"{value:.6g}" for value in matrices[frame].flatten().tolist()]
        raise CameraError(
            "the camera is not finite",
            where=f"{name}, frame {frame}",
            got=", ".join(entries),
            allowed="finite numbers",
            fix="correct or leave out this frame",
        )


def invert_matrices(matrices: Tensor, name: str = "camera_from_world") -> Tensor:
    """Invert camera matrices or intrinsics in float64.

    Args:
        matrices: [N, k, k].
        name: what to call them in the message.

    Returns:
        [N, k, k] float64.

    Raises:
        CameraError: a matrix is singular; the message names its frame.
    """
    inverse: Tensor
    inverse, info = torch.linalg.inv_ex(matrices.double())
    singular = info.nonzero()
    if len(singular):
        frame = int(singular[0, 0])
        raise CameraError(
            "the matrix cannot be inverted",
            where=f"{name}, frame {frame}",
            got=str(matrices[frame].tolist()),
            allowed="an invertible matrix",
        )
    return inverse


def camera_centers(camera_from_world: Tensor) -> Tensor:
    """Camera centres in world coordinates.

    Args:
        camera_from_world: [N, 4, 4].

    Returns:
        [N, 3] in the dtype of the input.

    Raises:
        CameraError: a camera is not finite or cannot be inverted.
    """
    check_cameras(camera_from_world)
    centers: Tensor = invert_matrices(camera_from_world)[:, :3, 3]
    return centers.to(camera_from_world.dtype)


def normalise_cameras(camera_from_world: Tensor, *, camera_scale: float = CAMERA_SCALE) -> Tensor:
    """Normalise a clip's cameras before rays are made from them ("centered").

    The first camera's rotation becomes the identity, the mean of the camera centres the origin,
    and the first centre's distance from it ``camera_scale`` (spec "Camera conditioning").

    Args:
        camera_from_world: [N, 4, 4].
        camera_scale: distance of the first centre from the origin afterwards; where that
            centre is the mean itself (a camera that stands still), what all translations are
            multiplied by.

    Returns:
        [N, 4, 4] float32.

    Raises:
        CameraError: a camera is not finite or cannot be inverted; centres too far apart.
    """
    return unify_cameras(camera_from_world, camera_from_world[:0], camera_scale=camera_scale)[0]


def unify_cameras(
    targets: Tensor, references: Tensor, *, camera_scale: float = CAMERA_SCALE
) -> tuple[Tensor, Tensor]:
    """Normalise a clip's cameras and those of its references together ("unified").

    All are made relative to the first target; the mean and the scale come from the targets
    alone. The targets are those of ``normalise_cameras``.

    Args:
        targets: camera_from_world [N, 4, 4] of the clip, N >= 1.
        references: camera_from_world [R, 4, 4] in the same world, R >= 0.
        camera_scale: as in ``normalise_cameras``.

    Returns:
        The targets [N, 4, 4] and the references [R, 4, 4], float32.

    Raises:
        CameraError: a camera is not finite or cannot be inverted; centres too far apart.
    """
    check_cameras(targets, "camera_from_world")
    if len(references):
        check_cameras(references, "reference camera_from_world")
    every = torch.cat([targets, references]).double() @ invert_matrices(targets[:1])
    centers = camera_centers(every)
    origin = _mean_center(centers[: len(targets)])
    centers = centers - origin
    first = float(centers[0].norm())
    scale = camera_scale / first if first >= SMALLEST_CENTER else camera_scale
    every[:, :3, 3] = -_rotate(every, centers * scale)
    every = every.float()
    return every[: len(targets)], every[len(targets) :]


def _mean_center(centers: Tensor) -> Tensor:
    """Mean of the centres [N, 3] that lie not too far from their per-axis lower median."""
    # Sorted instead of torch's median, which a GPU does not compute deterministically.
    median = centers.sort(dim=0).values[(len(centers) - 1) // 2]
    distance = (centers - median).norm(dim=-1)
    quantile = float(torch.quantile(distance, OUTLIER_QUANTILE))
    inlier = distance <= min(OUTLIER_FACTOR * quantile, OUTLIER_LIMIT)
    if not bool(inlier.any()):
        raise CameraError(
            "every camera of the clip lies too far from the others",
            where="camera_from_world",
            got=f"distances from the median centre of {float(distance.min()):.6g} and more",
            allowed=f"up to {OUTLIER_LIMIT:g} scene units",
            fix="rescale the scene",
        )
    return centers[inlier].mean(dim=0)


def _rotate(camera_from_world: Tensor, vectors: Tensor) -> Tensor:
    return (camera_from_world[:, :3, :3] @ vectors[..., None])[..., 0]


def rotation_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions of rotation matrices, real part first and not negative.

    Each is read off the row of 4 q q^T that belongs to its largest component (Shepperd 1978),
    so that nothing is divided by a small number.

    Args:
        rotation: [N, 3, 3].

    Returns:
        [N, 4] float32 (w, x, y, z), w >= 0.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (
        row.unbind(-1) for row in rotation.double().unbind(-2)
    )
    rows = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], dim=-1),
            torch.stack([zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx], dim=-1),
            torch.stack([xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy], dim=-1),
            torch.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    largest = torch.diagonal(rows, dim1=-2, dim2=-1).argmax(dim=-1)
    row = rows[torch.arange(len(rows), device=rows.device), largest]
    quaternion = row / row.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[:, :1] < 0, -quaternion, quaternion).float()


def quaternion_translation(camera_from_world: Tensor) -> Tensor:
    """The rows ``camera_qt``: rotation as a quaternion, then translation.

    Args:
        camera_from_world: [N, 4, 4], for the model after ``unify_cameras``.

    Returns:
        [N, 7] float32: (w, x, y, z) of the w2c rotation with w >= 0, then the w2c translation.

    Raises:
        CameraError: a camera is not finite.
    """
    check_cameras(camera_from_world)
    quaternion = rotation_quaternion(camera_from_world[:, :3, :3])
    return torch.cat([quaternion, camera_from_world[:, :3, 3].float()], dim=-1)
