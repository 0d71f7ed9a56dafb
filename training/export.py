"""Stage ``export``: trained weights into the published layout, ``python -m training.export RUNS``.

The base model gets the trained VAE and, as its transformer, the camera variant's backbone, so that
this variant's own file holds its ControlNet alone. The memory variants bring a backbone of their
own. Text and image encoders are frozen, seeded networks. Matrices are stored in bfloat16.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from training.architecture import TINY, Architecture
from training.autoencoder import STATISTICS, trained_vae
from training.generator import new_transformer
from training.run import averaged_weights
from training.seed_tiny import BUNDLED, PRECISE, files_of, write_json, write_model
from worldstereo.config import Variant
from worldstereo.models.source import BASE_WEIGHTS, VARIANT_WEIGHTS

STAGES: dict[Variant, str] = {
    "worldstereo-camera": "camera",
    "worldstereo-memory": "memory",
    "worldstereo-memory-dmd": "dmd",
}
# Parameters that the base model does not have.
OWN = ("controlnet.", "camera_embedding.", "ref_index_embedding.")


def export(runs: Path, folder: Path, architecture: Architecture = TINY) -> None:
    """Write a whole model from the stages' averaged weights.

    Args:
        runs: with all stages.
        folder: of the model; what is there is replaced.
        architecture: that was trained.
    """
    write_model(folder, architecture)
    vae = trained_vae(runs, architecture)
    store(folder / "base" / "vae" / BASE_WEIGHTS, vae.state_dict())
    statistics = json.loads((runs / "vae" / STATISTICS).read_text(encoding="utf-8"))
    write_json(
        folder / "base" / "vae" / "config.json",
        {"_class_name": "AutoencoderKLWan", **architecture.vae, **statistics},
    )
    for variant, stage in STAGES.items():
        weights = new_transformer(architecture, stage).state_dict()
        weights |= averaged_weights(runs / stage)
        if stage == "camera":
            backbone = {name: w for name, w in weights.items() if not name.startswith(OWN)}
            store(folder / "base" / "transformer" / BASE_WEIGHTS, backbone)
            weights = {name: w for name, w in weights.items() if name.startswith(OWN)}
        store(folder / variant / VARIANT_WEIGHTS, weights)


def store(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights, matrices in bfloat16 but for those that the transformer keeps in float32."""
    kept = {}
    for name, weight in weights.items():
        rounded = weight.ndim >= 2 and not any(part in name for part in PRECISE)
        weight = weight.detach().cpu()
        kept[name] = (weight.bfloat16() if rounded else weight.float()).contiguous()
    save_file(kept, file, metadata={"format": "pt"})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folder", nargs="?", type=Path, default=BUNDLED)
    arguments = parser.parse_args()
    export(arguments.runs, arguments.folder)
    size = sum(path.stat().st_size for path in files_of(arguments.folder))
    print(f"{size:,} bytes in {arguments.folder}")


if __name__ == "__main__":
    main()
