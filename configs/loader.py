"""Reads configs/models/*.yaml and configs/clusters/*.yaml into their strict settings.

A name without a folder or suffix is a file shipped here; anything else is a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from configs.settings import ClusterSettings, ModelSettings, Settings
from worldstereo.errors import ParameterError

FOLDER = Path(__file__).parent

SettingsT = TypeVar("SettingsT", bound=Settings)


def load_model(name_or_path: str | Path) -> ModelSettings:
    """Settings of a model family.

    Args:
        name_or_path: name of a file in configs/models, or the path of a YAML file.

    Raises:
        ParameterError: there is no such file, or a field of it is unknown or out of range.
    """
    return _load(name_or_path, FOLDER / "models", ModelSettings)


def load_cluster(name_or_path: str | Path) -> ClusterSettings:
    """Settings of a machine and of the application on it.

    Args:
        name_or_path: name of a file in configs/clusters, or the path of a YAML file.

    Raises:
        ParameterError: there is no such file, or a field of it is unknown or out of range.
    """
    return _load(name_or_path, FOLDER / "clusters", ClusterSettings)


def shipped(kind: str) -> list[str]:
    """Names of the files shipped for ``models`` or ``clusters``."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def _load(name_or_path: str | Path, folder: Path, cls: type[SettingsT]) -> SettingsT:
    text = str(name_or_path)
    path = (
        Path(text) if "/" in text or text.endswith((".yaml", ".yml")) else folder / f"{text}.yaml"
    )
    if not path.is_file():
        raise ParameterError(
            "no such configuration",
            where=str(path),
            got=repr(text),
            allowed=f"the path of a YAML file, or one of {', '.join(shipped(folder.name))}",
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return cls.model_validate(content)
    except yaml.YAMLError as error:
        raise ParameterError("not YAML", where=str(path), got=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ParameterError(
            f"{field}: {first['msg']}",
            where=str(path),
            got=repr(first["input"])[:200],
            allowed=f"fields {', '.join(cls.model_fields)}",
        ) from error
