"""valid_analysis.json: views that were looked at and rejected before generation.

Owns reading that one file.
"""

from __future__ import annotations

from worldstereo.errors import LayoutError
from worldstereo.formats.scene_files import SceneFiles, describe_json

VALID_ANALYSIS = "valid_analysis.json"


def rejected_view(files: SceneFiles, view: str) -> str | None:
    """Why a view is left out: its file says anything but ``"valid": "yes"``; None to keep it.

    Raises:
        LayoutError: the file is no JSON object.
    """
    name = f"{view}/{VALID_ANALYSIS}"
    if not files.has_file(name):
        return None
    content = files.read_object(name, LayoutError)
    if content.get("valid") == "yes":
        return None
    said = f"valid = {describe_json(content['valid'])}" if "valid" in content else "no field valid"
    return f"{VALID_ANALYSIS} says {said}"
