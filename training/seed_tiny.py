"""Write the bundled model: ``python -m training.seed_tiny [FOLDER]``.

``worldstereo-tiny`` has the published layout (a base model folder, one folder a variant, DINOv2
beside them) and the real classes at a tiny size, so it is loaded by the code that loads the
released checkpoints. Its weights are seeded, not trained: what it draws means nothing, but every
shape, range and code path is real. Each weight is a function of its name and shape alone
(numpy's frozen ``RandomState``), so the command writes the same bytes every time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    UMT5Config,
    UMT5EncoderModel,
)

from worldstereo.config import VARIANTS, ControlNetConfig, Variant
from worldstereo.models.checkpoint import build_transformer

BUNDLED = Path(__file__).parent.parent / "worldstereo" / "bundled" / "worldstereo-tiny"

Shapes = Mapping[str, tuple[int, ...]]

TRANSFORMER = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 48,
    "freq_dim": 64,
    "ffn_dim": 216,
    "num_layers": 4,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": 32,
    "added_kv_proj_dim": 96,
    "rope_max_seq_len": 1024,
    "pos_embed_seq_len": None,
}
CONTROLNET = {
    "dim": 56,
    "ffn_dim": 128,
    "num_heads": 4,
    "num_layers": 2,
    "time_embed_dim": 96,
    "conv_out_dim": 64,
    "add_channels": 7,
    "mid_channels": 16,
    "mask_downsample": 1,
    "interp": False,
    "update_ref": True,
    "ref_embedding": True,
    "main_camera_embedding": True,
    "camera_embedding_dim": 7,
}
VARIANT = {
    "base_model": "base",
    "nframe": 21,
    "scale_map": [[128, 192], [144, 192], [160, 160], [192, 144], [192, 128]],
    "latent_cond_mode": "first_frame_only",
    "negative_prompt": "blurry, distorted, static, low quality",
    "dmd_start_steps": 250,
    "dmd_end_steps": 1000,
    "dmd_steps": 4,
    "gen_shift": 5.0,
    "controlnet_cfg": CONTROLNET,
}
VAE = {
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 3, 4],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "solver_order": 2,
    "solver_type": "bh2",
    "prediction_type": "flow_prediction",
    "predict_x0": True,
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
    "timestep_spacing": "linspace",
    "final_sigmas_type": "zero",
    "lower_order_final": True,
}
UMT5 = {
    "vocab_size": 259,  # 256 bytes behind <pad>, </s> and <unk>
    "d_model": 48,
    "d_kv": 12,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
DINOV2 = {
    "hidden_size": 32,
    "mlp_ratio": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 14,
}
CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}
DINOV2_PROCESSOR = {
    **CLIP_PROCESSOR,
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 256},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
TOKENIZER = {
    "tokenizer_class": "ByT5Tokenizer",
    "extra_ids": 0,
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "model_max_length": 512,
}
MODEL_INDEX = {
    "_class_name": "WanImageToVideoPipeline",
    "image_encoder": ["transformers", "CLIPVisionModel"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "ByT5Tokenizer"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
# Kept in float32 by the transformer, so stored so.
PRECISE = ("time_embedder", "scale_shift_table")
# The backbone weights that the variants bring along; the others stay the base model's.
OVERLAID = ("proj_out.weight", "proj_out.bias")


def seeded(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight that depends on its name and shape alone.

    Matrices are scaled by 1 / sqrt(fan-in), gains lie around 1, biases around 0, so that
    activations keep their size through any number of layers.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = torch.from_numpy(random.standard_normal(shape).astype(np.float32))
    last = name.rpartition(".")[2]
    if len(shape) >= 2 and last != "gamma":
        fan_in = int(np.prod(shape[1:]))
        values = values / fan_in**0.5
        precise = any(part in name for part in PRECISE)
        return values if precise else values.bfloat16()
    gain = last in ("weight", "gamma", "lambda1")
    return 1 + 0.1 * values if gain else 0.1 * values


def diffusers_shapes(module: torch.nn.Module) -> Shapes:
    """Names and shapes of a diffusers model, which is saved under the names it has."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def transformers_shapes(model: PreTrainedModel, root: str) -> Shapes:
    """Names and shapes as transformers writes them: the published ones, not its inner ones.

    Some versions leave out ``root``, which all names of a published CLIP begin with.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", framework="pt") as file:
            return {
                root + name.removeprefix(root): tuple(file.get_slice(name).get_shape())
                for name in file.keys()  # noqa: SIM118  # a safetensors file is no mapping
            }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented JSON; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_weights(path: Path, prefix: str, shapes: Shapes) -> None:
    """Seeded weights for these names; ``prefix`` makes equal names of two models differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: seeded(prefix + name, shapes[name]) for name in sorted(shapes)}
    save_file(weights, path, metadata={"format": "pt"})


def write_base(folder: Path) -> None:
    """The Wan 2.1 I2V part, as a diffusers repository has it."""
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(
        folder / "transformer" / "config.json",
        {"_class_name": "WanTransformer3DModel", **TRANSFORMER},
    )
    write_json(folder / "vae" / "config.json", {"_class_name": "AutoencoderKLWan", **VAE})
    with torch.device("meta"):
        transformer, vae = WanTransformer3DModel(**TRANSFORMER), AutoencoderKLWan(**VAE)
    weights = "diffusion_pytorch_model.safetensors"
    write_weights(folder / "transformer" / weights, "transformer.", diffusers_shapes(transformer))
    write_weights(folder / "vae" / weights, "vae.", diffusers_shapes(vae))
    write_json(
        folder / "scheduler" / "scheduler_config.json",
        {"_class_name": "UniPCMultistepScheduler", **SCHEDULER},
    )
    write_json(folder / "tokenizer" / "tokenizer_config.json", TOKENIZER)
    write_transformers_model(
        folder / "text_encoder", "text_encoder.", UMT5EncoderModel(UMT5Config(**UMT5)), UMT5
    )
    write_transformers_model(
        folder / "image_encoder",
        "image_encoder.",
        CLIPVisionModel(CLIPVisionConfig(**CLIP)),
        CLIP,
        root="vision_model.",
    )
    write_json(folder / "image_processor" / "preprocessor_config.json", CLIP_PROCESSOR)


def write_transformers_model(
    folder: Path, prefix: str, model: PreTrainedModel, config: Mapping[str, Any], root: str = ""
) -> None:
    """``config.json`` with the given arguments alone, and seeded weights beside it."""
    head = {
        "architectures": [type(model).__name__],
        "model_type": model.config.model_type,
        "dtype": "float32",
    }
    write_json(folder / "config.json", {**head, **config})
    write_weights(folder / "model.safetensors", prefix, transformers_shapes(model, root))


def variant_shapes(variant: Variant) -> Shapes:
    """What a variant brings: its ControlNet, camera embedding and overlaid backbone weights."""
    with torch.device("meta"):
        model = build_transformer(variant, TRANSFORMER, ControlNetConfig(**CONTROLNET))
        backbone = set(WanTransformer3DModel(**TRANSFORMER).state_dict())
    shapes = diffusers_shapes(model)
    return {
        name: shape for name, shape in shapes.items() if name not in backbone or name in OVERLAID
    }


def write_model(folder: Path) -> None:
    """The whole of ``worldstereo-tiny``, into ``folder``."""
    write_base(folder / "base")
    for variant in VARIANTS:
        write_json(folder / variant / "config.json", VARIANT)
        write_weights(
            folder / variant / "model.safetensors", f"{variant}.", variant_shapes(variant)
        )
    write_transformers_model(
        folder / "dinov2", "dinov2.", Dinov2Model(Dinov2Config(**DINOV2)), DINOV2
    )
    write_json(folder / "dinov2" / "preprocessor_config.json", DINOV2_PROCESSOR)


def files_of(folder: Path) -> Iterator[Path]:
    """Every file under ``folder``, sorted."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Write the model, then list its files and their sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m training.seed_tiny", description="Write the bundled tiny model."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=BUNDLED)
    folder: Path = parser.parse_args().folder
    write_model(folder)
    for path in files_of(folder):
        print(f"{path.stat().st_size:>9,}  {path.relative_to(folder)}")
    print(f"{sum(path.stat().st_size for path in files_of(folder)):>9,}  bytes in {folder}")


if __name__ == "__main__":
    main()
