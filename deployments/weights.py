"""Which files a model needs, where they are, and getting them, for the command line.

The places are found by ``worldstereo.models.source``; nothing is loaded here and torch stays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from configs.settings import ModelSettings
from worldstereo.config import ModelConfig, Variant
from worldstereo.errors import CheckpointError
from worldstereo.models.source import (
    BUNDLED,
    VARIANT_WEIGHTS,
    BackboneConfig,
    bundled_folder,
    read_backbone_config,
    read_model_config,
    readable_weights,
    resolve_base,
    resolve_folder,
    weight_files,
)


@dataclass(frozen=True)
class Part:
    """One part of a model and the folder that holds it."""

    what: str
    folder: Path


def model_config_of(
    settings: ModelSettings, variant: Variant, *, local_files_only: bool = False
) -> ModelConfig:
    """A variant's config.json; of a repository that file alone is fetched.

    Raises:
        CheckpointError: it cannot be found, or is no configuration.
    """
    root = resolve_folder(
        settings.source, subfolder=variant, files="config.json", local_files_only=local_files_only
    )
    return read_model_config(root / variant)


def backbone_config_of(
    settings: ModelSettings, variant: Variant, *, local_files_only: bool = False
) -> BackboneConfig:
    """The sizes of a variant's base model; of a repository that file alone is fetched.

    Raises:
        CheckpointError: it cannot be found, or is no configuration.
    """
    root = resolve_folder(
        settings.source, subfolder=variant, files="config.json", local_files_only=local_files_only
    )
    name = read_model_config(root / variant).base_model
    base = resolve_folder(
        root / name if (root / name).is_dir() else name,  # as resolve_base finds it
        subfolder="transformer",
        files="config.json",
        local_files_only=local_files_only,
    )
    return read_backbone_config(base / "transformer")


def weights_of(
    settings: ModelSettings, variant: Variant, *, local_files_only: bool = False
) -> list[Part]:
    """Find everything that a variant is loaded from; what is missing is downloaded, if allowed.

    The variant's own weights are opened, so that a file that was cut is found.

    Args:
        settings: the model family.
        variant: one of its variants.
        local_files_only: look on this machine alone.

    Raises:
        CheckpointError: a part is missing or cut; the message says what to type.
    """
    root = resolve_folder(settings.source, subfolder=variant, local_files_only=local_files_only)
    for file in weight_files(root / variant, VARIANT_WEIGHTS):
        with readable_weights(file), safe_open(file, framework="np") as opened:
            opened.keys()
    config = read_model_config(root / variant)
    base = resolve_base(config, root / variant, local_files_only=local_files_only)
    return [
        Part(variant, root / variant),
        Part("base model", base),
        Part("image features", _image_features(settings.image_features, local_files_only)),
    ]


def _image_features(source: str, local_files_only: bool) -> Path:
    name, _, rest = source.partition("/")
    if name in BUNDLED:
        return resolve_folder(bundled_folder(name), subfolder=rest) / rest
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    # Imported here: not needed for what is on this machine.
    import httpx
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            source,
            local_files_only=local_files_only,
            allow_patterns=["*.json", "*.safetensors"],
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise CheckpointError(
            "the network for image features cannot be found",
            where=source,
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            fix=f"to fetch it, type: hf download {source}",
        ) from error
    return Path(folder)
