"""Scene folders that must be refused: each a valid one with one thing wrong.

Reused wherever scenes enter: ``read_scene``, the command line, HTTP. ``mentions`` are parts of
the message: the file or field, and what was got. ``arguments`` go to ``read_scene``; a path
among them is relative to the folder's parent. A case that is not ``uploadable`` is no folder
that an archive could hold (it does not exist, is a file, or has links that leave it).
"""

from tests.formats import bad_cameras, bad_folders, bad_media
from tests.formats.bad_scene_table import CASES, BadScene

__all__ = ["CASES", "BadScene", "bad_cameras", "bad_folders", "bad_media"]
