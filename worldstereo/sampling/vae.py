"""Frames to latents and back, keyframe by keyframe.

WorldStereo 2.0 gives every keyframe a latent of its own: the Wan VAE sees videos of one frame.
This module owns the batching, the normalisation with the VAE's ``latents_mean`` and
``latents_std``, and the encoding of one whole causal video for the start-frame condition. The
network itself is diffusers' ``AutoencoderKLWan``.

In a video of one frame, two of the three slices of every causal convolution see only zeros, and
the frames that diffusers keeps for the next call are never used. So on a GPU keyframes run through
two-dimensional convolutions with the last slice of each kernel and keep nothing: less than half
the time and a third of the memory for the same sums. On a CPU they do not, although it would save
time: there float32 sums come out a third less exact that way, which the recorded numbers do not
leave room for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import nn
from torch.nn import functional

from worldstereo.parallel.frames import over_frames
from worldstereo.parallel.mesh import ParallelMesh

# Frames [N, ...] to as many results, each by itself.
FrameWork = Callable[[torch.Tensor], torch.Tensor]

# Frames in one call of the VAE. More take no less time on an H200 at 480x768, but 0.8 GB each.
FRAMES_PER_CALL = 2


class FrameConvolution(nn.Module):
    """A causal convolution over time as it acts on the first frame of a video.

    Args:
        causal: pads time with as many zero frames in front as its kernel is long, less one.
    """

    def __init__(self, causal: WanCausalConv3d) -> None:
        super().__init__()
        self.weight: torch.Tensor
        self.register_buffer("weight", causal.weight.detach()[:, :, -1].contiguous())
        self.bias = causal.bias
        left, _, top, _, _, _ = causal._padding
        self.padding = (top, left)
        self.stride = causal.stride[1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, in, 1, H, W] -> [B, out, 1, H', W']."""
        frames = functional.conv2d(x[:, :, 0], self.weight, self.bias, self.stride, self.padding)
        return frames[:, :, None]


def for_single_frames(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """The same VAE for videos of one frame; all parameters but the convolutions' are shared."""
    shared = {id(parameter): parameter for parameter in vae.parameters()}
    single: AutoencoderKLWan = copy.deepcopy(vae, shared)
    for name, module in list(single.named_modules()):
        # Those that change the frame rate are skipped for the first frame of a video.
        if isinstance(module, WanCausalConv3d) and module._padding[4] == module.kernel_size[0] - 1:
            owner, _, attribute = name.rpartition(".")
            setattr(single.get_submodule(owner), attribute, FrameConvolution(module))
    return single


class KeyframeVAE:
    """An ``AutoencoderKLWan`` applied to frames one by one, several in a batch.

    Args:
        vae: with its final weights, in evaluation mode, on the device to compute on. Its
            precision is the computation's; what goes in and comes out is float32.
        frames_per_call: frames in one batch. Results do not depend on it beyond rounding.
        flat: whether keyframes run through two-dimensional convolutions; None: on a GPU.
        mesh: ranks that share the frames, all of which encode and decode the same ones; None:
            this one alone.
    """

    def __init__(
        self,
        vae: AutoencoderKLWan,
        frames_per_call: int = FRAMES_PER_CALL,
        *,
        flat: bool | None = None,
        mesh: ParallelMesh | None = None,
    ) -> None:
        assert vae.config.patch_size is None, vae.config.patch_size  # Wan 2.2's, not 2.1's
        self.vae = vae
        self.frames_per_call = frames_per_call
        self.scale_factor: int = vae.config.scale_factor_spatial
        self.latent_channels: int = vae.config.z_dim
        flat = vae.device.type != "cpu" if flat is None else flat
        self._single = for_single_frames(vae) if flat else vae
        self._mesh = mesh or ParallelMesh.single(vae.device)
        self._mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(vae.device)
        self._std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(vae.device)

    @torch.no_grad()
    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Normalised latents of each frame by itself (posterior mode).

        Args:
            video: [B, 3, N, H, W] in [-1, 1]; H and W multiples of the VAE's scale factor.

        Returns:
            [B, 16, N, H / 8, W / 8] float32.
        """
        batch, _, count, _, _ = video.shape
        frames = video.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # [B N, 3, 1, H, W]
        latents = over_frames(self._mesh, self._in_batches(self._encode), frames).squeeze(2)
        return latents.reshape(batch, count, *latents.shape[1:]).transpose(1, 2)

    @torch.no_grad()
    def encode_causal(self, video: torch.Tensor) -> torch.Tensor:
        """Normalised latents of a video as one, causal in time (posterior mode).

        Args:
            video: [B, 3, 4 (N - 1) + 1, H, W] in [-1, 1].

        Returns:
            [B, 16, N, H / 8, W / 8] float32.
        """
        return self._normalised(self.vae.encode(self._here(video)).latent_dist.mode())

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames of normalised keyframe latents, each decoded by itself.

        Args:
            latents: [B, 16, N, h, w].

        Returns:
            [B, 3, N, 8 h, 8 w] float32 in [-1, 1].
        """
        batch, _, count, _, _ = latents.shape
        each = latents.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # [B N, 16, 1, h, w]
        frames = over_frames(self._mesh, self._in_batches(self._decode), each).squeeze(2)
        return frames.reshape(batch, count, *frames.shape[1:]).transpose(1, 2)

    def _in_batches(self, work: FrameWork) -> FrameWork:
        def batched(frames: torch.Tensor) -> torch.Tensor:
            parts = torch.split(frames, self.frames_per_call)
            return torch.cat([work(part) for part in parts])

        return batched

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        moments = self._single.quant_conv(self._single.encoder(self._here(frames)))
        # The mode of the posterior is its mean, the first half.
        return self._normalised(moments.chunk(2, dim=1)[0])

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        raw = latents.to(self.vae.device, torch.float32) * self._std + self._mean
        frames: torch.Tensor = self._single.decoder(self._single.post_quant_conv(self._here(raw)))
        return frames.float().clamp(-1, 1)

    def _normalised(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents.float() - self._mean) / self._std

    def _here(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.vae.device, self.vae.dtype)
