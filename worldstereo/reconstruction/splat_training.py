"""3D Gaussian splatting as an optimisation over images with known cameras.

Owns the parameters of the Gaussians, the loss, the learning rates and the loop, after Kerbl,
Kopanas, Leimkühler, Drettakis: 3D Gaussian Splatting for Real-Time Radiance Field Rendering (2023).
What draws the Gaussians, and what adds and removes them, is given to it: gsplat, or anything that
is called alike. Reading scenes and writing splats is splats.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from worldstereo.errors import GenerationCancelled, GenerationError, MediaError
from worldstereo.formats.splat_ply import GaussianSplats, sh_from_rgb
from worldstereo.types import Bool, Cameras, PointCloud, UInt8

# Weight of 1 - SSIM in the loss; the rest is the mean absolute difference.
SSIM_SHARE = 0.2
# A further degree of the spherical harmonics is learnt from every so many steps on.
SH_EVERY = 1000
INITIAL_OPACITY = 0.1
# Neighbours whose mean distance is a point's first size.
NEIGHBOURS = 3
# Of Adam. That of the centres is in scene extents, and falls exponentially to the second value.
MEANS_RATE, LAST_MEANS_RATE = 1.6e-4, 1.6e-6
RATES = {"scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 2.5e-3 / 20}
ADAM_EPSILON = 1e-15
# Wang, Bovik, Sheikh, Simoncelli 2004; for colours of 0..1.
WINDOW, SIGMA, C1, C2 = 11, 1.5, 0.01**2, 0.03**2


class Rasterise(Protocol):
    """Draws Gaussians; ``gsplat.rasterization`` is one."""

    def __call__(
        self,
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
        """Draw N Gaussians for C cameras, differentiably, on black.

        Args:
            means: [N, 3] in world coordinates.
            quats: [N, 4], w first, world from Gaussian, any length but 0.
            scales: [N, 3] standard deviations.
            opacities: [N] in 0..1.
            colors: [N, K, 3] coefficients of spherical harmonics.
            camera_from_world: [C, 4, 4], OpenCV axes.
            intrinsics: [C, 3, 3] in pixels of ``height`` x ``width``.
            width, height: of the images.
            sh_degree: that is drawn; (sh_degree + 1)^2 <= K.
            packed: False: what is told beside the images has one row a camera and Gaussian.

        Returns:
            Colours [C, height, width, 3], not clipped; opacities [C, height, width, 1]; and what
            a ``Strategy`` needs.
        """
        ...


class Strategy(Protocol):
    """Adds and removes Gaussians while they are trained; ``gsplat.DefaultStrategy`` is one."""

    def initialize_state(self, scene_scale: float) -> dict[str, Any]:
        """What it remembers between steps."""
        ...

    def step_pre_backward(
        self,
        params: ParameterDict,
        optimizers: dict[str, torch.optim.Adam],
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        /,
    ) -> None:
        """Called before the gradients are computed."""
        ...

    def step_post_backward(
        self,
        params: ParameterDict,
        optimizers: dict[str, torch.optim.Adam],
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        /,
        *,
        packed: bool,
    ) -> None:
        """Called after the step; may replace the parameters."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how far; the fields are those of ``splats.SplatParameters``."""

    steps: int
    seed: int
    sh_degree: int
    max_gaussians: int


@dataclass(frozen=True, eq=False)
class TrainedSplats:
    """What came out.

    Attributes:
        splats: in the world of the cameras.
        extent: of the scene, in its unit.
        training_psnr, held_out_psnr: mean dB over the images; None where there is none.
    """

    splats: GaussianSplats
    extent: float
    training_psnr: float | None
    held_out_psnr: float | None


def train(
    cloud: PointCloud,
    images: UInt8,
    cameras: Cameras,
    held_out: Bool,
    schedule: Schedule,
    rasterise: Rasterise,
    strategy: Strategy | None = None,
    *,
    device: str,
    on_step: Callable[[int], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
    name: str = "cloud",
) -> TrainedSplats:
    """Fit Gaussians to images.

    Args:
        cloud: where they start, P >= 4 points in the world of the cameras.
        images: [V, H, W, 3] uint8, both sides at least 11 pixels.
        cameras: V cameras of that size.
        held_out: [V], True where an image is not learnt from; at least one is.
        schedule: how long and how far.
        rasterise: draws them.
        strategy: adds and removes them; None: their number stays.
        device: to compute on.
        on_step: is told the steps that are done.
        stop: is asked before each step.
        name: how errors call the cloud.

    Raises:
        MediaError: the cloud has fewer than 4 points.
        GenerationError: a value is no longer finite.
        GenerationCancelled: ``stop`` said so.
    """
    assert images.shape == (len(cameras), cameras.height, cameras.width, 3), images.shape
    assert min(images.shape[1:3]) >= WINDOW, images.shape
    assert held_out.shape == (len(images),), held_out.shape
    assert not held_out.all(), "every image is held out"
    if len(cloud) <= NEIGHBOURS:
        raise MediaError(
            "the cloud has too few points to start from",
            where=name,
            got=str(len(cloud)),
            allowed=f"{NEIGHBOURS + 1} or more",
        )
    # A strategy may draw from torch's own generators.
    forked = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(schedule.seed)
        loop = _Loop(cloud, images, cameras, schedule, rasterise, strategy, device)
        for step, index in enumerate(_order(np.flatnonzero(~held_out), schedule)):
            if stop():
                raise GenerationCancelled("the training of the splats was stopped")
            loop.step(step, index)
            on_step(step + 1)
        splats = loop.splats()
        return TrainedSplats(
            splats=splats,
            extent=loop.extent,
            training_psnr=loop.psnr(np.flatnonzero(~held_out)),
            held_out_psnr=loop.psnr(np.flatnonzero(held_out)),
        )


class _Loop:
    """The Gaussians while they are trained."""

    def __init__(
        self,
        cloud: PointCloud,
        images: UInt8,
        cameras: Cameras,
        schedule: Schedule,
        rasterise: Rasterise,
        strategy: Strategy | None,
        device: str,
    ) -> None:
        self.extent = scene_extent(cameras, cloud)
        self._schedule, self._rasterise, self._device = schedule, rasterise, device
        self._degree = min(schedule.sh_degree, (schedule.steps - 1) // SH_EVERY)
        self._gaussians = initial_gaussians(cloud, self._degree, device)
        self._optimizers = _optimizers(self._gaussians, self.extent)
        self._decay = (LAST_MEANS_RATE / MEANS_RATE) ** (1 / schedule.steps)
        self._strategy = strategy
        self._state = None if strategy is None else strategy.initialize_state(self.extent)
        # On the CPU: only one image is needed at a time.
        self._images, self._size = torch.from_numpy(images), (cameras.height, cameras.width)
        self._poses = torch.from_numpy(cameras.camera_from_world).float()
        self._intrinsics = torch.from_numpy(cameras.intrinsics).float()

    def step(self, step: int, index: int) -> None:
        """Learn from image ``index``."""
        picture, info = self._draw(index, min(step // SH_EVERY, self._degree))
        loss = photometric_loss(picture, self._truth(index))
        if self._grows:
            assert self._strategy is not None
            assert self._state is not None
            self._strategy.step_pre_backward(
                self._gaussians, self._optimizers, self._state, step, info
            )
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self._optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self._grows:
            assert self._strategy is not None
            assert self._state is not None
            self._strategy.step_post_backward(
                self._gaussians, self._optimizers, self._state, step, info, packed=False
            )
        self._optimizers["means"].param_groups[0]["lr"] *= self._decay

    @torch.no_grad()
    def psnr(self, indices: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float | None:
        """Mean over images of 10 log10(1 / MSE), colours clipped to 0..1."""
        found = []
        for index in indices.tolist():
            picture = self._draw(index, self._degree)[0].clamp(0, 1)
            error = float(F.mse_loss(picture, self._truth(index)))
            found.append(-10 * np.log10(max(error, 1e-10)))
        return float(np.mean(found)) if found else None

    def splats(self) -> GaussianSplats:
        """The Gaussians as they are; GenerationError where one is not finite."""
        values = {key: value.detach().cpu() for key, value in self._gaussians.items()}
        bad = [key for key, value in values.items() if not bool(value.isfinite().all())]
        if bad:
            raise GenerationError(
                "the splats diverged",
                where=f"after {self._schedule.steps} steps",
                got=f"values that are not finite in {', '.join(bad)}",
            )
        return GaussianSplats(
            means=values["means"].numpy(),
            rotations=F.normalize(values["quats"], dim=-1).numpy(),
            log_scales=values["scales"].numpy(),
            opacity_logits=values["opacities"].numpy(),
            sh=torch.cat([values["sh0"], values["shN"]], dim=1).numpy(),
        )

    @property
    def _grows(self) -> bool:
        room = len(self._gaussians["means"]) < self._schedule.max_gaussians
        return self._strategy is not None and room

    def _draw(self, index: int, degree: int) -> tuple[Tensor, dict[str, Any]]:
        """One image [H, W, 3]."""
        values, (height, width) = self._gaussians, self._size
        pictures, _, info = self._rasterise(
            values["means"],
            values["quats"],
            values["scales"].exp(),
            values["opacities"].sigmoid(),
            torch.cat([values["sh0"], values["shN"]], dim=1),
            self._poses[[index]].to(self._device),
            self._intrinsics[[index]].to(self._device),
            width,
            height,
            sh_degree=degree,
            packed=False,
        )
        return pictures[0], info

    def _truth(self, index: int) -> Tensor:
        return self._images[index].to(self._device).float() / 255


def scene_extent(cameras: Cameras, cloud: PointCloud) -> float:
    """The length that learning rates and thresholds are fractions of.

    Published programs take the radius of the cameras' places, enlarged by a tenth. Clips that
    are all taken from near one place say nothing about a scene's size by that, so that it is at
    least the points' median distance from the cameras' mean place.
    """
    world_from_camera = np.linalg.inv(cameras.camera_from_world.astype(np.float64))
    places = world_from_camera[:, :3, 3]
    middle = places.mean(axis=0)
    radius = 1.1 * float(np.linalg.norm(places - middle, axis=-1).max())
    distance = float(np.median(np.linalg.norm(cloud.points - middle, axis=-1)))
    return max(radius, distance)


def initial_gaussians(cloud: PointCloud, sh_degree: int, device: str) -> ParameterDict:
    """A sphere at each point, as large as the mean distance of its three nearest others.

    Returns:
        Under the names that gsplat's strategies know: means [P, 3], scales [P, 3] (logarithms),
        quats [P, 4], opacities [P] (logits), sh0 [P, 1, 3], shN [P, (degree + 1)^2 - 1, 3].
    """
    count = len(cloud)
    distances, _ = cKDTree(cloud.points).query(cloud.points, k=NEIGHBOURS + 1)
    sizes = np.asarray(distances)[:, 1:].mean(axis=1)
    # Points that coincide still get a size.
    sizes = np.maximum(sizes, max(1e-2 * float(np.median(sizes)), 1e-7))
    colors = sh_from_rgb(cloud.colors.astype(np.float32) / np.float32(255))
    values = {
        "means": torch.from_numpy(cloud.points.astype(np.float32)),
        "scales": torch.from_numpy(np.log(sizes).astype(np.float32))[:, None].repeat(1, 3),
        "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        "opacities": torch.full((count,), INITIAL_OPACITY).logit(),
        "sh0": torch.from_numpy(colors)[:, None],
        "shN": torch.zeros(count, (sh_degree + 1) ** 2 - 1, 3),
    }
    return ParameterDict({key: Parameter(value.to(device)) for key, value in values.items()})


def photometric_loss(picture: Tensor, truth: Tensor) -> Tensor:
    """0.8 times the mean absolute difference plus 0.2 times (1 - SSIM) of images [H, W, 3]."""
    difference = (picture - truth).abs().mean()
    return (1 - SSIM_SHARE) * difference + SSIM_SHARE * (1 - ssim(picture, truth))


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Mean SSIM of colours 0..1 [H, W, 3], each channel by itself (Wang et al. 2004, eq. 13).

    Where the whole 11x11 Gaussian window of sigma 1.5 lies in the image.
    """
    offsets = torch.arange(WINDOW, device=first.device) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = (window / window.sum()).to(first.dtype)
    x, y = first.permute(2, 0, 1), second.permute(2, 0, 1)
    parts = torch.cat([x, y, x * x, y * y, x * y])[:, None]
    rows = F.conv2d(parts, window.reshape(1, 1, 1, -1))
    mean_x, mean_y, xx, yy, xy = F.conv2d(rows, window.reshape(1, 1, -1, 1)).chunk(5)
    variance_x, variance_y = xx - mean_x**2, yy - mean_y**2
    covariance = xy - mean_x * mean_y
    maps = ((2 * mean_x * mean_y + C1) * (2 * covariance + C2)) / (
        (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    )
    mean: Tensor = maps.mean()
    return mean


def _optimizers(gaussians: ParameterDict, extent: float) -> dict[str, torch.optim.Adam]:
    """One Adam for each parameter, as gsplat's strategies want them."""
    rates = {"means": MEANS_RATE * extent, **RATES}
    return {
        key: torch.optim.Adam([value], lr=rates[key], eps=ADAM_EPSILON)
        for key, value in gaussians.items()
    }


def _order(indices: np.ndarray[tuple[int], np.dtype[np.intp]], schedule: Schedule) -> Iterator[int]:
    """Image indices, one a step: all of them in random order, again and again."""
    rng = np.random.default_rng(schedule.seed)
    left: list[int] = []
    for _ in range(schedule.steps):
        left = left or rng.permutation(indices).tolist()
        yield left.pop()
