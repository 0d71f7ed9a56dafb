"""Check the engine against recorded numbers: ``python -m tests.golden [FOLDER ...]``.

A folder holds any subset of the files listed in ``CHECKS``; each file's cases are read from it.
Prints one line a case and exits 1 if any tolerance is exceeded or a case could not be checked, 2 if
a folder holds nothing to check. Tensors that no case is about are named on the error stream.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.golden import (
    check_cameras,
    check_pipelines,
    check_rendering,
    check_retrieval,
    check_transformer,
)
from tests.golden.report import Case, Options, attempt

# The file that holds a group of cases -> what checks them; it is given the file's folder.
CHECKS: dict[str, Callable[[Path, Options], Iterator[Case]]] = {
    "transformer/transformer.json": check_transformer.check_forward,
    "transformer/full_size_keys.json": check_transformer.check_full_size_keys,
    "pipelines/pipelines.json": check_pipelines.check,
    "cameras/cameras.safetensors": check_cameras.check_cameras,
    "cameras/tables.json": check_cameras.check_tables,
    "rendering/rendering.json": check_rendering.check,
    "retrieval/retrieval.json": check_retrieval.check_retrieval,
    "retrieval/selection.json": check_retrieval.check_selection,
    "retrieval/worldmirror_cameras.json": check_retrieval.check_worldmirror_cameras,
    "retrieval/worldmirror_name_map.json": check_retrieval.check_worldmirror_name_map,
}


def run(folder: Path, options: Options) -> Iterator[Case]:
    """The cases of every known file in ``folder``, as they are finished."""
    for file, check in CHECKS.items():
        if (folder / file).is_file():
            yield from attempt(file, check, (folder / file).parent, options)
        elif (folder / file).with_suffix(".safetensors").is_file():
            print(f"{folder}: not checked: {file} is missing beside its tensors", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(__file__).parent])
    parser.add_argument("--renderer", choices=["torch", "pytorch3d"], default="torch")
    arguments = parser.parse_args()
    options = Options(renderer=arguments.renderer)
    count = failed = empty = 0
    for folder in arguments.folders:
        before = count
        for case in run(folder, options):
            print(case, flush=True)
            count, failed = count + 1, failed + (not case.passed)
        if count == before:
            print(f"{folder}: holds none of {', '.join(CHECKS)}", file=sys.stderr)
            empty += 1
    print(f"{count - failed} of {count} golden cases within tolerance")
    return 1 if failed else 2 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
