"""Write a model with seeded weights: ``python -m training.seed_tiny FOLDER``.

It has the published layout (a base model folder, one folder a variant, DINOv2
beside them) and the real classes at a tiny size, so it is loaded by the code that loads the
released checkpoints. Its weights are seeded, not trained: what it draws means nothing, but every
shape, range and code path is real, which is enough for most tests. Each weight is a function of
its name and shape alone (numpy's frozen ``RandomState``), so the command writes the same bytes
every time. The bundled model has its text encoder, CLIP vision model and DINOv2 from here, which
nothing trains; the rest of it is trained (``training/README.md``).
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

from training.architecture import (
    CLIP,
    CLIP_PROCESSOR,
    DINOV2,
    DINOV2_PROCESSOR,
    MINIATURE,
    MODEL_INDEX,
    SCHEDULER,
    TOKENIZER,
    UMT5,
    Architecture,
)
from worldstereo.config import VARIANTS, ControlNetConfig, Variant
from worldstereo.models.checkpoint import build_transformer

BUNDLED = Path(__file__).parent.parent / "worldstereo" / "bundled" / "worldstereo-tiny"

Shapes = Mapping[str, tuple[int, ...]]

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


def write_base(folder: Path, architecture: Architecture) -> None:
    """The Wan 2.1 I2V part, as a diffusers repository has it."""
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(
        folder / "transformer" / "config.json",
        {"_class_name": "WanTransformer3DModel", **architecture.transformer},
    )
    write_json(
        folder / "vae" / "config.json", {"_class_name": "AutoencoderKLWan", **architecture.vae}
    )
    with torch.device("meta"):
        transformer = WanTransformer3DModel(**architecture.transformer)
        vae = AutoencoderKLWan(**architecture.vae)
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


def variant_shapes(variant: Variant, architecture: Architecture) -> Shapes:
    """What a variant brings: its ControlNet, camera embedding and overlaid backbone weights."""
    with torch.device("meta"):
        controlnet = ControlNetConfig(**architecture.controlnet)
        model = build_transformer(variant, architecture.transformer, controlnet)
        backbone = set(WanTransformer3DModel(**architecture.transformer).state_dict())
    shapes = diffusers_shapes(model)
    return {
        name: shape for name, shape in shapes.items() if name not in backbone or name in OVERLAID
    }


def write_model(folder: Path, architecture: Architecture = MINIATURE) -> None:
    """A whole model, into ``folder``."""
    write_base(folder / "base", architecture)
    for variant in VARIANTS:
        write_json(folder / variant / "config.json", architecture.variant)
        shapes = variant_shapes(variant, architecture)
        write_weights(folder / variant / "model.safetensors", f"{variant}.", shapes)
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
        prog="python -m training.seed_tiny", description="Write a model with seeded weights."
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    write_model(folder)
    for path in files_of(folder):
        print(f"{path.stat().st_size:>9,}  {path.relative_to(folder)}")
    print(f"{sum(path.stat().st_size for path in files_of(folder)):>9,}  bytes in {folder}")


if __name__ == "__main__":
    main()
