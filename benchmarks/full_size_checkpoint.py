"""A full-size checkpoint with random weights, in the published layout.

``python -m benchmarks.full_size_checkpoint FOLDER`` writes about 50 GB: a base model (transformer
in shards, VAE, UMT5-XXL, CLIP ViT-H, scheduler, the bundled byte tokenizer) and one variant.
With ``--one-layer-encoders`` it is 36 GB: what is measured of the transformer stays the same.
Sizes come from the golden files; nothing is downloaded. Numbers are drawn once and used again
and again: drawing 18 billion takes minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from worldstereo.config import DEFAULT_SCALE_MAP, ControlNetConfig, Variant
from worldstereo.models.checkpoint import build_transformer
from worldstereo.models.source import bundled_folder

KEYS = Path(__file__).parent.parent / "tests" / "golden" / "transformer" / "full_size_keys.json"
SHARD_BYTES = 5_000_000_000
OVERLAY = ("controlnet.", "camera_embedding.")
# More than the largest tensor's rows of one number each; a prime, so that rows differ.
POOL = 67_108_859


def random_tensors(
    model: torch.nn.Module, device: str, *, overlay: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Random bf16 values, scaled by fan-in, for the variant's own keys or for all others."""
    pool = torch.randn(POOL, device=device).to(torch.bfloat16)
    for name, tensor in model.state_dict().items():
        if name.startswith(OVERLAY) != overlay:
            continue
        repeats = -(-tensor.numel() // POOL)
        values = pool.repeat(repeats)[: tensor.numel()].view(tensor.shape)
        if tensor.ndim >= 2:
            yield name, values / tensor[0].numel() ** 0.5
        else:
            yield name, 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def write_shards(folder: Path, stem: str, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Safetensors of about 5 GB each, and the index that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    held = 0

    def flush() -> None:
        nonlocal held
        file = f"{stem}-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(shard, folder / file)
        weight_map.update(dict.fromkeys(shard, file))
        shard.clear()
        held = 0

    for name, tensor in tensors:
        shard[name] = tensor.cpu()
        held += tensor.nbytes
        if held > SHARD_BYTES:
            flush()
    if shard:
        flush()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def write_encoders(base: Path, device: str, *, one_layer: bool) -> None:
    """The base model's other parts, as large as the published ones unless told otherwise."""
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        text = UMT5EncoderModel(
            UMT5Config(
                vocab_size=384 if one_layer else 256384,
                d_model=4096,
                d_kv=64,
                d_ff=10240,
                num_layers=1 if one_layer else 24,
                num_heads=64,
            )
        )
        text.save_pretrained(base / "text_encoder")
        del text
        vision = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=1280,
                intermediate_size=5120,
                num_hidden_layers=2 if one_layer else 32,
                num_attention_heads=16,
                patch_size=14,
                image_size=224,
            )
        )
        vision.save_pretrained(base / "image_encoder")
        torch.set_default_dtype(torch.float32)
        AutoencoderKLWan().save_pretrained(base / "vae")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ).save_pretrained(base / "scheduler")
    for part in ("tokenizer", "image_processor"):
        shutil.copytree(bundled_folder("worldstereo-tiny") / "base" / part, base / part)


def write_checkpoint(
    folder: Path, variant: Variant, device: str, sizes: Mapping[str, dict], *, one_layer: bool
) -> None:
    """The base model and one variant."""
    controlnet = ControlNetConfig.model_validate(sizes["controlnet_cfg"])
    with torch.device("meta"):
        model = build_transformer(variant, sizes["backbone"], controlnet)
    base = folder / "base"
    write_shards(
        base / "transformer",
        "diffusion_pytorch_model",
        random_tensors(model, device, overlay=False),
    )
    (base / "transformer" / "config.json").write_text(json.dumps(sizes["backbone"]))
    write_shards(folder / variant, "model", random_tensors(model, device, overlay=True))
    (folder / variant / "config.json").write_text(
        json.dumps(
            {
                "base_model": "base",
                "nframe": 21,
                "scale_map": DEFAULT_SCALE_MAP,
                "latent_cond_mode": "full_vae",
                "negative_prompt": "blurry",
                "dmd_start_steps": 250,
                "dmd_end_steps": 1000,
                "dmd_steps": 4,
                "gen_shift": 5.0,
                "controlnet_cfg": sizes["controlnet_cfg"],
            }
        )
    )
    write_encoders(base, device, one_layer=one_layer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", default="worldstereo-memory-dmd")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--one-layer-encoders", action="store_true")
    arguments = parser.parse_args()
    sizes = json.loads(KEYS.read_text())
    write_checkpoint(
        arguments.folder,
        arguments.variant,
        arguments.device,
        sizes,
        one_layer=arguments.one_layer_encoders,
    )


if __name__ == "__main__":
    main()
