"""Where model files lie: the bundled model, a local folder, or the Hugging Face Hub.

Owns: turning a name into folders with the needed files, reading ``config.json``, and the messages
for files that are missing. Imports no torch, so that a server's front end may read a model's
configuration. Leaves to others: what is in the weights (checkpoint.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from worldstereo.config import ModelConfig
from worldstereo.errors import CheckpointError

BUNDLED = ("worldstereo-tiny",)
BASE_SUBFOLDERS = (
    "transformer",
    "vae",
    "text_encoder",
    "tokenizer",
    "image_encoder",
    "image_processor",
    "scheduler",
)
BASE_WEIGHTS = "diffusion_pytorch_model.safetensors"
VARIANT_WEIGHTS = "model.safetensors"
# Part of the names of tensors that older files hold and diffusers' Wan has no parameter for.
UNUSED_KEY = "norm_added_q"

# Other programs' formats that lie beside the files that we read.
_NOT_READ = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.onnx", "*.md")
_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_SHOWN = 3

_Config = TypeVar("_Config", bound=BaseModel)


class BackboneConfig(BaseModel):
    """``transformer/config.json`` of a Wan 2.1 I2V base model; other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    patch_size: tuple[Literal[1], int, int] = (1, 2, 2)
    num_attention_heads: int = Field(gt=0)
    attention_head_dim: int = Field(gt=0, multiple_of=2)
    in_channels: int = Field(gt=0)
    out_channels: int = Field(gt=0)
    text_dim: int = Field(gt=0)
    freq_dim: int = Field(gt=0, multiple_of=2)
    ffn_dim: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    cross_attn_norm: bool = True
    qk_norm: Literal["rms_norm_across_heads"] = "rms_norm_across_heads"
    eps: float = Field(default=1e-6, gt=0)
    image_dim: int = Field(gt=0)
    added_kv_proj_dim: int = Field(gt=0)
    rope_max_seq_len: int = Field(default=1024, gt=0)
    pos_embed_seq_len: None = None

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_attention_heads * self.attention_head_dim


def shortened(items: Sequence[str]) -> str:
    """The first few of many names, then how many there are beside them."""
    listed = ", ".join(items[:_SHOWN])
    return listed + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def bundled_folder(name: str) -> Path:
    """The folder of a model that comes with this package."""
    return Path(__file__).parent.parent / "bundled" / name


def resolve_folder(
    repo_or_folder: str | Path,
    *,
    subfolder: str | Sequence[str],
    files: str = "*",
    local_files_only: bool = False,
) -> Path:
    """The folder that holds the wanted subfolders of a model, fetched if need be.

    Args:
        repo_or_folder: ``worldstereo-tiny``, a folder, or a repository on the Hugging Face Hub.
        subfolder: what is needed of it, such as ``worldstereo-memory-dmd``; no more is fetched.
        files: which files of each subfolder are fetched, as a shell pattern.
        local_files_only: use what is on this machine; never the network.

    Returns:
        A folder in which every wanted subfolder exists.

    Raises:
        CheckpointError: nothing is there, a subfolder is missing, or the Hub cannot be reached.
    """
    subfolders = (subfolder,) if isinstance(subfolder, str) else tuple(subfolder)
    name = str(repo_or_folder)
    local = Path(name).expanduser()
    if name and local.is_dir():
        root = local.resolve()
    elif name in BUNDLED:
        root = bundled_folder(name)
    else:
        patterns = [f"{one}/{files}" for one in subfolders]
        root = fetch(name, patterns, local_files_only=local_files_only)
    return _with_subfolders(root, subfolders, name)


def fetch(repo: str, patterns: Sequence[str], *, local_files_only: bool) -> Path:
    """Download what matches from a repository on the Hub, or find it in the local cache.

    Args:
        repo: repository, as ``owner/name``.
        patterns: shell patterns of the files wanted.
        local_files_only: use what is on this machine; never the network.

    Returns:
        The folder of the repository's snapshot; it may hold other files, too.

    Raises:
        CheckpointError: the name is neither a folder nor a repository, or it cannot be reached.
    """
    if not _REPO_ID.fullmatch(repo):
        raise CheckpointError(
            "no such model folder",
            where=repo or "base_model",
            allowed="worldstereo-tiny, a folder, or a Hugging Face repository such as "
            "hanshanxue/WorldStereo",
        )
    # Imported here: a model that is on this machine needs neither.
    import httpx
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo,
            local_files_only=local_files_only,
            allow_patterns=list(patterns),
            ignore_patterns=list(_NOT_READ),
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        where = "on this machine" if local_files_only else "here or on the Hugging Face Hub"
        raise CheckpointError(
            f"the model cannot be found {where}",
            where=repo,
            got=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            allowed="worldstereo-tiny, a folder, or a Hugging Face repository",
            fix=_how_to_get(repo, patterns),
        ) from error
    return Path(folder)


def resolve_base(
    config: ModelConfig,
    variant_folder: Path,
    *,
    subfolders: Sequence[str] = BASE_SUBFOLDERS,
    local_files_only: bool = False,
) -> Path:
    """The folder of the base model that a variant's configuration names, fetched if need be.

    Where the variant holds every weight of the base transformer, as the base's index tells, the
    base's transformer weights are not downloaded.

    Args:
        config: the variant's configuration; ``base_model`` is a folder relative to the variant
            folder's parent, any other folder, or a repository on the Hub.
        variant_folder: folder that ``config`` was read from.
        subfolders: parts of the base model that are needed.
        local_files_only: use what is on this machine; never the network.

    Returns:
        A folder in which every needed subfolder exists.

    Raises:
        CheckpointError: nothing is there, a subfolder is missing, or the Hub cannot be reached.
    """
    name = config.base_model
    for folder in (variant_folder.parent / name, Path(name).expanduser()):
        if name and folder.is_dir():
            return _with_subfolders(folder.resolve(), subfolders, name)
    patterns = [f"{one}/*" for one in subfolders]
    if "transformer" in subfolders:
        configs = ["transformer/*.json"]
        base = fetch(name, configs, local_files_only=local_files_only) / "transformer"
        if _covers(variant_folder, base):
            patterns[patterns.index("transformer/*")] = "transformer/*.json"
    root = fetch(name, patterns, local_files_only=local_files_only)
    return _with_subfolders(root, subfolders, name)


def read_model_config(folder: Path) -> ModelConfig:
    """``config.json`` of a variant's folder.

    Raises:
        CheckpointError: it is missing, no JSON, or a field is missing or out of range.
    """
    return _read_config(folder / "config.json", ModelConfig)


def read_backbone_config(folder: Path) -> BackboneConfig:
    """``config.json`` of a base model's ``transformer`` folder.

    Raises:
        CheckpointError: it is missing, no JSON, or not that of a Wan 2.1 I2V transformer.
    """
    return _read_config(folder / "config.json", BackboneConfig)


def checked_config(values: Any, where: str, kind: type[_Config]) -> _Config:
    """Values as a configuration of this kind.

    Raises:
        CheckpointError: a field is missing or out of range; the first few are named.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        first = wrong[0]
        fields = [".".join(str(part) for part in one["loc"]) or "the whole" for one in wrong]
        raise CheckpointError(
            f"the configuration does not fit in {shortened(fields)}",
            where=where,
            got="nothing" if first["type"] == "missing" else repr(first["input"])[:80],
            allowed=f"{fields[0]}: {first['msg']}",
        ) from error


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors file of this name, or the shards that its index lists.

    Args:
        folder: where they lie.
        name: ``model.safetensors`` or ``diffusion_pytorch_model.safetensors``.

    Returns:
        Existing files, in the order of their names.

    Raises:
        CheckpointError: a file is missing, or the index cannot be read.
    """
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        raise CheckpointError(
            "a model file is missing",
            where=str(folder / name),
            allowed=f"{name}, or {index.name} and its shards",
            fix="download the folder again",
        )
    shards = sorted(set(_weight_map(index).values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"of {len(shards)} model files {len(missing)} are missing",
            where=str(folder / missing[0]),
            got=f"no {shortened(missing)}",
            fix="download the folder again",
        )
    return [folder / shard for shard in shards]


@contextmanager
def readable_weights(file: Path) -> Iterator[None]:
    """Report a safetensors file that cannot be read inside the block as CheckpointError."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            "the file is no complete safetensors file",
            where=str(file),
            got=f"{file.stat().st_size if file.is_file() else 0} bytes: {error}",
            fix="it is truncated or damaged; download it again",
        ) from error


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor names -> shard files."""
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise CheckpointError("the index has no weight_map", where=str(index))
    outside = [file for file in names.values() if Path(file).name != file]
    if outside:
        raise CheckpointError(
            "the index names files outside its folder", where=str(index), got=shortened(outside)
        )
    return names


def _covers(variant_folder: Path, base_transformer: Path) -> bool:
    """Whether the variant's files hold every tensor that the base's index lists."""
    index = base_transformer / f"{BASE_WEIGHTS}.index.json"
    if not index.is_file():
        return False
    names: set[str] = set()
    for file in weight_files(variant_folder, VARIANT_WEIGHTS):
        with readable_weights(file), safe_open(file, framework="np") as opened:
            names.update(opened.keys())
    return all(name in names or UNUSED_KEY in name for name in _weight_map(index))


def _read_config(file: Path, kind: type[_Config]) -> _Config:
    if not file.is_file():
        raise CheckpointError(
            "a model file is missing", where=str(file), fix="download the folder again"
        )
    return checked_config(_read_json(file), str(file), kind)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("the file is no JSON", where=str(file), got=str(error)) from error
    if not isinstance(values, dict):
        raise CheckpointError(
            "the file holds no JSON object", where=str(file), got=type(values).__name__
        )
    return values


def _with_subfolders(root: Path, subfolders: Sequence[str], name: str) -> Path:
    missing = [one for one in subfolders if not (root / one).is_dir()]
    if not missing:
        return root
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    raise CheckpointError(
        f"the model has no folder {shortened(missing)}",
        where=str(root),
        got=f"folders {', '.join(found)}" if found else "no folders",
        fix=_how_to_get(name, [f"{one}/*" for one in missing]),
    )


def _how_to_get(name: str, patterns: Sequence[str]) -> str:
    if name in BUNDLED:
        return "the installation is incomplete: install worldstereo-cluster again"
    if Path(name).expanduser().is_dir() or not _REPO_ID.fullmatch(name):
        return "pass the folder that holds it"
    include = " ".join(f'--include "{pattern}"' for pattern in patterns)
    return f"to fetch it, type: hf download {name} {include}"
