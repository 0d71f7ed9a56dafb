"""Keyframes through the VAE: batched as if one by one."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from worldstereo import WorldStereo
from worldstereo.sampling.vae import FrameConvolution, KeyframeVAE, for_single_frames

# float32 sums in another order; the largest latents are about 4.
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture
def vae(distilled: WorldStereo) -> AutoencoderKLWan:
    return distilled.vae.vae


@pytest.fixture
def video() -> torch.Tensor:
    return torch.tanh(torch.randn(1, 3, 5, 32, 48, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def encode_slowly(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """One frame at a time, as diffusers' pipelines normalise latents."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    frames = [video[:, :, i : i + 1] for i in range(video.shape[2])]
    modes = [vae.encode(frame).latent_dist.mode() for frame in frames]
    return (torch.cat(modes, dim=2) - mean) / std


@torch.no_grad()
def decode_slowly(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    raw = latents * std + mean
    parts = [vae.decode(raw[:, :, i : i + 1]).sample for i in range(raw.shape[2])]
    return torch.cat(parts, dim=2).clamp(-1, 1)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("frames_per_call", [1, 2, 5, 8])
def test_batched_frames_are_the_frames_one_by_one(
    vae: AutoencoderKLWan, video: torch.Tensor, frames_per_call: int, flat: bool
) -> None:
    keyframes = KeyframeVAE(vae, frames_per_call, flat=flat)
    latents = keyframes.encode(video)
    assert latents.shape == (1, 16, 5, 4, 6)
    torch.testing.assert_close(latents, encode_slowly(vae, video), **TOLERANCE)
    frames = keyframes.decode(latents)
    assert frames.shape == video.shape
    torch.testing.assert_close(frames, decode_slowly(vae, latents), **TOLERANCE)
    assert float(frames.abs().max()) <= 1


def test_a_frame_does_not_depend_on_its_neighbours(
    vae: AutoencoderKLWan, video: torch.Tensor
) -> None:
    keyframes = KeyframeVAE(vae)
    order = [3, 1, 4, 0, 2]
    latents, shuffled = keyframes.encode(video), keyframes.encode(video[:, :, order])
    torch.testing.assert_close(shuffled, latents[:, :, order], **TOLERANCE)


def test_batches_of_videos_keep_their_frames_apart(
    vae: AutoencoderKLWan, video: torch.Tensor
) -> None:
    two = torch.cat([video, -video])
    keyframes = KeyframeVAE(vae, 4)
    latents = keyframes.encode(two)
    torch.testing.assert_close(latents[1:], encode_slowly(vae, -video), **TOLERANCE)
    torch.testing.assert_close(keyframes.decode(latents)[:1], keyframes.decode(latents[:1]))


def test_a_causal_video_starts_like_its_first_frame_and_goes_on_differently(
    vae: AutoencoderKLWan, video: torch.Tensor
) -> None:
    keyframes = KeyframeVAE(vae)
    latents = keyframes.encode_causal(video)  # 5 = 4 (2 - 1) + 1 frames
    assert latents.shape == (1, 16, 2, 4, 6)
    alone = keyframes.encode(video)
    torch.testing.assert_close(latents[:, :, :1], alone[:, :, :1], **TOLERANCE)
    assert float((latents[:, :, 1] - alone[:, :, 4]).abs().max()) > 0.01


def test_the_vae_for_single_frames_copies_no_more_than_a_third_of_its_convolutions(
    vae: AutoencoderKLWan,
) -> None:
    single = for_single_frames(vae)
    convolutions = [m for m in single.modules() if isinstance(m, FrameConvolution)]
    own = {parameter.data_ptr() for parameter in vae.parameters()}
    assert all(parameter.data_ptr() in own for parameter in single.parameters())
    copied = sum(module.weight.numel() for module in convolutions)
    assert 0 < copied < 0.4 * sum(parameter.numel() for parameter in vae.parameters())
    # The original is as it was: it still encodes whole videos.
    assert not any(isinstance(module, FrameConvolution) for module in vae.modules())
