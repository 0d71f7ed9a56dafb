"""A model of the released layout for tests in which weights mean nothing: as small as can be.

It is written once on a machine, outside the project, and again when what writes it changes.
"""

from __future__ import annotations

import getpass
import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

from training import architecture, seed_tiny


def miniature_settings(folder: Path) -> Path:
    """A YAML file in ``folder`` for ``--model``: the bundled model's settings, of the miniature."""
    file = folder / "miniature.yaml"
    bundled = Path(__file__).parent.parent / "configs" / "models" / "worldstereo-tiny.yaml"
    file.write_text(bundled.read_text().replace("worldstereo-tiny", miniature()))
    return file


@cache
def miniature() -> str:
    """The folder, as ``source`` of a model or for ``from_pretrained``."""
    written_by = b"".join(Path(str(m.__file__)).read_bytes() for m in (architecture, seed_tiny))
    name = (
        f"worldstereo-miniature-{getpass.getuser()}-{hashlib.sha256(written_by).hexdigest()[:16]}"
    )
    folder = Path(tempfile.gettempdir()) / name
    if not folder.exists():
        # Several processes may do so at once; the first one's stays.
        building = Path(tempfile.mkdtemp(prefix=name))
        seed_tiny.write_model(building, architecture.MINIATURE)
        try:
            building.rename(folder)
        except OSError:
            shutil.rmtree(building)
    return str(folder)
