"""Stage ``vae``: the keyframe VAE, ``python -m training.autoencoder RUNS WORLDS``.

Trains diffusers' ``AutoencoderKLWan`` as the product uses it, frame by frame: of every causal
kernel only the slice that a video of one frame meets is trained, the others are zero. It sees the
exact pictures and, a quarter of the time, point renders with their holes, since it has to encode
both. Latents get a little noise before they are decoded, so that small errors of the generator
stay small in the picture.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import count
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from training.architecture import TINY, Architecture
from training.run import Inputs, Rates, Run, averaged_weights, stage_arguments
from training.worlds import HELD_OUT, VALIDATION
from worldstereo.sampling.vae import FrameConvolution, for_single_frames

# Crops of pictures: with the same pixels in more steps, the network gets farther.
BATCH, CROP, RATES = 64, 64, Rates(hidden=0.02, other=1e-3)
# Weight of the Kullback-Leibler term; deviation of the noise on latents that are decoded.
KL_WEIGHT, LATENT_NOISE = 1e-6, 0.05
# Of each scene's pictures so many are renders.
RENDER_SHARE = 0.25
LOG_EVERY, VALIDATE_EVERY = 200, 2000
# Where the statistics of the latents are, and of how many pictures they are.
STATISTICS, COUNTED = "statistics.json", 2048


class KeyframeNetwork(nn.Module):
    """The VAE's two-dimensional part, with parameters that can be trained.

    Args:
        vae: whose weights ``store`` changes.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        single = for_single_frames(vae)
        self.encoder, self.quant = single.encoder, single.quant_conv
        self.decoder, self.post_quant = single.decoder, single.post_quant_conv
        self._vae = [vae]  # no module of this one
        for module in self.modules():
            if isinstance(module, FrameConvolution):
                weight = module.weight
                del module._buffers["weight"]
                module.weight = nn.Parameter(weight.clone(memory_format=torch.channels_last))  # type: ignore[assignment]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("time_conv" not in name)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [B, z, h, w] of frames [B, 3, H, W]."""
        mean, log_variance = self.quant(self.encoder(frames[:, :, None]))[:, :, 0].chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames [B, 3, H, W] of latents [B, z, h, w], not clamped."""
        frames: Tensor = self.decoder(self.post_quant(latents[:, :, None]))[:, :, 0]
        return frames

    def store(self) -> AutoencoderKLWan:
        """The VAE with the trained weights; the other slices of its kernels are zero."""
        (vae,) = self._vae
        for own, name in (
            (self.encoder, "encoder"),
            (self.quant, "quant_conv"),
            (self.decoder, "decoder"),
            (self.post_quant, "post_quant_conv"),
        ):
            theirs = vae.get_submodule(name)
            for path, module in own.named_modules():
                if isinstance(module, FrameConvolution):
                    kernel = theirs.get_submodule(path).weight.data
                    kernel.zero_()[:, :, -1] = module.weight.detach()
        return vae


class Pictures:
    """All pictures of all scenes as bytes on the device, drawn at random."""

    def __init__(self, worlds: Path, device: str, *, validation: bool = False) -> None:
        seeds = sorted(int(file.stem) for file in worlds.glob("*.safetensors"))
        chosen = [s for s in seeds if (VALIDATION <= s < HELD_OUT) == validation]
        assert chosen, f"no scenes in {worlds}"
        parts = {"images": list[Tensor](), "renders": list[Tensor]()}
        for seed in chosen:
            with safe_open(worlds / f"{seed:05d}.safetensors", framework="pt") as file:
                for name, found in parts.items():
                    found.append(file.get_tensor(name).flatten(0, 1).to(device))
        self.images, self.renders = (torch.cat(found) for found in parts.values())

    def draw(self, count: int, crop: int | None = None) -> Tensor:
        """[count, 3, H, W] float32 in [-1, 1], or one square of so many pixels of each."""
        renders = int(count * RENDER_SHARE)
        parts = []
        for source, wanted in ((self.images, count - renders), (self.renders, renders)):
            parts.append(source[torch.randint(len(source), (wanted,), device=source.device)])
        drawn = torch.cat(parts)
        if crop is not None:
            drawn = _cropped(drawn, crop)
        return to_range(drawn)


def _cropped(pictures: Tensor, side: int) -> Tensor:
    """Another square [N, side, side, 3] of each picture [N, H, W, 3]."""
    count, height, width = pictures.shape[:3]
    places = torch.arange(side, device=pictures.device)
    top = torch.randint(height - side + 1, (count, 1), device=pictures.device) + places
    left = torch.randint(width - side + 1, (count, 1), device=pictures.device) + places
    numbers = torch.arange(count, device=pictures.device)
    return pictures[numbers[:, None, None], top[:, :, None], left[:, None, :]]


def to_range(pictures: Tensor) -> Tensor:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] float32 in [-1, 1]."""
    return (pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """[N] in dB of pictures [N, 3, H, W] in [-1, 1]."""
    return 10 * torch.log10(4 / (a.float() - b.float()).square().flatten(1).mean(1).clamp(min=1e-9))


def new_vae(architecture: Architecture, seed: int = 0) -> AutoencoderKLWan:
    """An untrained VAE."""
    torch.manual_seed(seed)
    return AutoencoderKLWan(**architecture.vae)


@torch.no_grad()
def validate(network: KeyframeNetwork, pictures: Tensor) -> float:
    """Mean PSNR in dB over pictures [N, H, W, 3] uint8."""
    found = []
    for part in pictures.split(64):
        frames = to_range(part)
        decoded = network.decode(network.encode(frames)[0])
        found.append(psnr(decoded.clamp(-1, 1), frames))
    return float(torch.cat(found).mean())


def train(
    runs: Path,
    worlds: Path,
    minutes: float,
    *,
    device: str,
    architecture: Architecture = TINY,
    batch: int = BATCH,
) -> None:
    """Train it; the folder ``runs/vae`` gets checkpoint, log and statistics of its latents."""
    pictures, held = Pictures(worlds, device), Pictures(worlds, device, validation=True)
    network = KeyframeNetwork(new_vae(architecture)).to(device)
    run = Run(runs / "vae", network, partial(reconstruction_loss, network), RATES, minutes)

    def scores() -> dict[str, float]:
        return {
            "validation_psnr": validate(network, held.images[::8]),
            "validation_psnr_of_renders": validate(network, held.renders[::8]),
        }

    batches = ({"frames": pictures.draw(batch, CROP)} for _ in count())
    run.train(batches, scores, log_every=LOG_EVERY, validate_every=VALIDATE_EVERY)
    content = json.dumps(statistics(network, pictures), indent=2)
    (runs / "vae" / STATISTICS).write_text(content + "\n", encoding="utf-8")


def reconstruction_loss(network: KeyframeNetwork, inputs: Inputs) -> Tensor:
    """Squared error of the pictures, and a little of the Kullback-Leibler divergence."""
    frames = inputs["frames"]
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=frames.is_cuda):
        mean, log_variance = network.encode(frames)
        spread = (0.5 * log_variance).exp() + LATENT_NOISE * mean.detach().std()
        decoded = network.decode(mean + torch.randn_like(mean) * spread)
    error = functional.mse_loss(decoded.float(), frames)
    mean, log_variance = mean.float(), log_variance.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error + KL_WEIGHT * kl


@torch.no_grad()
def statistics(network: KeyframeNetwork, pictures: Pictures) -> dict[str, list[float]]:
    """Mean and deviation of each latent channel, as the VAE's config file has them."""
    means = [network.encode(pictures.draw(64))[0] for _ in range(COUNTED // 64)]
    latents = torch.cat(means).transpose(0, 1).flatten(1).double()
    return {
        "latents_mean": [round(v, 5) for v in latents.mean(dim=1).tolist()],
        "latents_std": [round(v, 5) for v in latents.std(dim=1).tolist()],
    }


def trained_vae(runs: Path, architecture: Architecture = TINY) -> AutoencoderKLWan:
    """The VAE of a run, averaged weights and statistics of its latents, on the CPU."""
    network = KeyframeNetwork(new_vae(architecture))
    missing, unexpected = network.load_state_dict(averaged_weights(runs / "vae"), strict=False)
    assert not unexpected, unexpected
    assert all("time_conv" in name for name in missing), missing
    vae = network.store()
    vae.register_to_config(**json.loads((runs / "vae" / STATISTICS).read_text(encoding="utf-8")))
    return vae


def main() -> None:
    """The command."""
    arguments = stage_arguments("training.autoencoder", __doc__, minutes=6).parse_args()
    train(arguments.runs, arguments.worlds, arguments.minutes, device=arguments.device)


if __name__ == "__main__":
    main()
