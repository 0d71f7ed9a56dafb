"""The condition channels, by hand."""

from typing import Any

import pytest
import torch

from worldstereo import WorldStereo
from worldstereo.sampling.conditions import LatentConditions
from worldstereo.sampling.vae import KeyframeVAE

FRAMES = 4


@pytest.fixture
def vae(distilled: WorldStereo) -> KeyframeVAE:
    return distilled.vae


@pytest.fixture
def image() -> torch.Tensor:
    return torch.tanh(torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("mode", ["full_vae", "first_frame_only"])
def test_the_mask_marks_the_first_frame(vae: KeyframeVAE, image: torch.Tensor, mode: Any) -> None:
    start = LatentConditions(vae, mode).start(image, FRAMES)
    assert start.shape == (1, 20, FRAMES, 4, 6)
    assert start.dtype == torch.float32
    assert bool((start[:, :4, 0] == 1).all())
    assert bool((start[:, :4, 1:] == 0).all())


def test_first_frame_only_repeats_the_latent_of_one_zero_frame(
    vae: KeyframeVAE, image: torch.Tensor
) -> None:
    latents = LatentConditions(vae, "first_frame_only").start(image, FRAMES)[:, 4:]
    assert torch.equal(latents[:, :, :1], vae.encode(image[:, :, None]))
    zero = vae.encode(torch.zeros(1, 3, 1, 32, 48))
    for frame in range(1, FRAMES):
        assert torch.equal(latents[:, :, frame : frame + 1], zero)


def test_full_vae_encodes_one_video_with_zero_frames(vae: KeyframeVAE, image: torch.Tensor) -> None:
    latents = LatentConditions(vae, "full_vae").start(image, FRAMES)[:, 4:]
    video = torch.zeros(1, 3, 4 * (FRAMES - 1) + 1, 32, 48)
    video[:, :, 0] = image
    assert torch.equal(latents, vae.encode_causal(video))
    assert not torch.equal(latents[:, :, 1], latents[:, :, 3])


def test_the_zero_latent_is_encoded_once_a_size(
    vae: KeyframeVAE, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros: list[tuple[int, ...]] = []
    encode = vae.encode

    def counted(video: torch.Tensor) -> torch.Tensor:
        if not video.any():
            zeros.append(tuple(video.shape[-2:]))
        return encode(video)

    monkeypatch.setattr(vae, "encode", counted)
    conditions = LatentConditions(vae, "first_frame_only")
    first = conditions.start(image, FRAMES)
    assert torch.equal(conditions.start(image, FRAMES), first)
    conditions.start(image, FRAMES + 3)  # depends on the size, not on the number of frames
    conditions.start(image.transpose(2, 3), FRAMES)
    assert zeros == [(32, 48), (48, 32)]


def test_reference_latents_come_twice_around_a_mask_of_ones(
    vae: KeyframeVAE, image: torch.Tensor
) -> None:
    video = torch.stack([image, -image], dim=2)
    latent = LatentConditions(vae, "full_vae").reference(video)
    assert latent.shape == (1, 36, 2, 4, 6)
    assert torch.equal(latent[:, :16], vae.encode(video))
    assert bool((latent[:, 16:20] == 1).all())
    assert torch.equal(latent[:, 20:], latent[:, :16])


def test_renders_are_encoded_as_they_are(vae: KeyframeVAE, image: torch.Tensor) -> None:
    video = torch.stack([image, -image, image], dim=2)
    assert torch.equal(LatentConditions(vae, "full_vae").render(video), vae.encode(video))
