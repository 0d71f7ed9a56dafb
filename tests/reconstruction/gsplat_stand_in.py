"""A stand-in for ``gsplat.rasterization``, which needs a GPU: slow, differentiable, all in torch.

Called as gsplat is, with its conventions: pixel centres at +0.5, the EWA projection of Zwicker et
al. 2001 with 0.3 pixels^2 added to the covariance, Gaussians sorted by depth and composited front
to back, an opacity below 1/255 counting as none and a pixel being full at 0.9999. It tells beside
the images what gsplat's strategies read. For a few hundred Gaussians and a few hundred pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from worldstereo.geometry.cameras import invert_matrices

NEAR = 0.01
BLUR = 0.3
LEAST_ALPHA, MOST_ALPHA, FULL = 1 / 255, 0.999, 1e-4
# A Gaussian is drawn to so many standard deviations.
REACH = 3.33
# Directions are bent no further outside the image than this share of its half width.
MARGIN = 0.3


def rasterise(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    /,
    *,
    sh_degree: int,
    packed: bool,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Draw Gaussians; arguments and returned values are gsplat's."""
    assert not packed
    rotation, shift = camera_from_world[:, :3, :3], camera_from_world[:, :3, 3]
    in_camera = torch.einsum("cij,nj->cni", rotation, means) + shift[:, None]
    pixels = torch.einsum("cij,cnj->cni", intrinsics, in_camera)
    places = pixels[..., :2] / pixels[..., 2:]
    axes = rotation[:, None] @ (_rotations(quats) * scales[:, None, :])
    jacobian = _jacobian(in_camera, intrinsics, width, height)
    flat = jacobian @ axes
    covariances = flat @ flat.transpose(-1, -2) + BLUR * torch.eye(2, device=means.device)
    extents = (REACH * covariances.detach().diagonal(dim1=-2, dim2=-1).sqrt()).ceil()
    size = torch.tensor([width, height], device=means.device)
    inside = ((places + extents > 0) & (places - extents < size)).all(dim=-1)
    drawn = inside & (in_camera[..., 2] > NEAR)
    centers = invert_matrices(camera_from_world)[:, :3, 3].to(means.dtype)
    shown = spherical_harmonics(sh_degree, means - centers[:, None], colors)
    images, alphas = zip(
        *(
            _composited(
                in_camera[index, :, 2],
                _alphas(places[index], covariances[index], opacities * drawn[index], width, height),
                (shown[index] + 0.5).clamp_min(0),
            )
            for index in range(len(camera_from_world))
        ),
        strict=True,
    )
    told = {
        "means2d": places,
        "radii": (extents * drawn[..., None]).int(),
        "gaussian_ids": None,
        "width": width,
        "height": height,
        "n_cameras": len(camera_from_world),
    }
    return (
        torch.stack(images).reshape(-1, height, width, 3),
        torch.stack(alphas).reshape(-1, height, width, 1),
        told,
    )


def spherical_harmonics(degree: int, directions: Tensor, coefficients: Tensor) -> Tensor:
    """Real spherical harmonics of directions [..., N, 3] times coefficients [N, K, 3]."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    ones = torch.ones_like(x)
    terms = [
        (1 / 4, ones),
        (3 / 4, -y),
        (3 / 4, z),
        (3 / 4, -x),
        (15 / 4, x * y),
        (15 / 4, -y * z),
        (5 / 16, 3 * z * z - 1),
        (15 / 4, -x * z),
        (15 / 16, x * x - y * y),
        (35 / 32, -y * (3 * x * x - y * y)),
        (105 / 4, x * y * z),
        (21 / 32, -y * (5 * z * z - 1)),
        (7 / 16, z * (5 * z * z - 3)),
        (21 / 32, -x * (5 * z * z - 1)),
        (105 / 16, z * (x * x - y * y)),
        (35 / 32, -x * (x * x - 3 * y * y)),
    ][: (degree + 1) ** 2]
    basis = torch.stack([math.sqrt(square / math.pi) * term for square, term in terms], dim=-1)
    return (basis[..., None] * coefficients[:, : len(terms)]).sum(dim=-2)


def _rotations(quats: Tensor) -> Tensor:
    """Matrices [N, 3, 3] of quaternions, w first."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def _jacobian(in_camera: Tensor, intrinsics: Tensor, width: int, height: int) -> Tensor:
    """Derivative [C, N, 2, 3] of the projection, of points far outside at the margin."""
    z = in_camera[..., 2]
    rows = []
    for axis, extent in enumerate((width, height)):
        focal = intrinsics[:, axis, axis, None]
        middle = intrinsics[:, axis, 2, None]
        margin = MARGIN * extent / 2
        slope = in_camera[..., axis] / z
        slope = slope.clamp(-(middle + margin) / focal, (extent - middle + margin) / focal)
        row = [torch.zeros_like(z), torch.zeros_like(z), -focal * slope / z]
        row[axis] = focal / z
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def _alphas(
    places: Tensor, covariances: Tensor, opacities: Tensor, width: int, height: int
) -> Tensor:
    """Opacity [N, height * width] of each Gaussian at each pixel."""
    # The exponent is the same sum at each pixel, so that one matrix product has it for all.
    y, x = torch.meshgrid(
        torch.arange(height, device=places.device) + 0.5,
        torch.arange(width, device=places.device) + 0.5,
        indexing="ij",
    )
    inverses = torch.linalg.inv(covariances)
    a, b, c = inverses[:, 0, 0], inverses[:, 0, 1], inverses[:, 1, 1]
    # About the middle of the image, where numbers are small.
    middle = torch.tensor([width / 2, height / 2], device=places.device)
    x, y = x.flatten() - middle[0], y.flatten() - middle[1]
    u, v = (places - middle).unbind(-1)
    squared = torch.stack(
        [
            *(a, 2 * b, c, -2 * (a * u + b * v), -2 * (b * u + c * v)),
            a * u * u + 2 * b * u * v + c * v * v,
        ],
        dim=-1,
    ) @ torch.stack([x * x, x * y, y * y, x, y, torch.ones_like(x)])
    alphas = (opacities[:, None] * torch.exp(-squared / 2)).clamp_max(MOST_ALPHA)
    return torch.where(alphas < LEAST_ALPHA, 0, alphas)


def _composited(depths: Tensor, alphas: Tensor, colors: Tensor) -> tuple[Tensor, Tensor]:
    """Colours [P, 3] and opacities [P] of P pixels, the nearest Gaussian first."""
    order = depths.argsort()
    alphas, colors = alphas[order], colors[order]
    left = torch.log1p(-alphas).cumsum(dim=0).exp()
    before = torch.cat([torch.ones_like(left[:1]), left[:-1]])
    weights = alphas * before * (left > FULL)
    return weights.T @ colors, weights.sum(dim=0)
