"""How long a compiled worker takes to be ready, the first time and with its compiled code on disk.

``python -m benchmarks.warm_up``: the bundled model on this machine's CPU, each start in a process
of its own, one cache folder. It is the code of a worker's start on a GPU; seconds there are others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.environment import ROOT, write_result

START = """
import json, sys, time
from pathlib import Path
from actors.engine import EngineSpec, load_worldstereo
from worldstereo.config import ComputeOptions
def load(compile):
    began = time.perf_counter()
    load_worldstereo(EngineSpec(
        factory="", source="worldstereo-tiny", variant="worldstereo-memory-dmd", device="cpu",
        precision="float32", torch_threads=1, local_files_only=True,
        options=ComputeOptions(compile=compile), compile_cache=Path(sys.argv[1])), None)
    return time.perf_counter() - began
print(json.dumps({"plain_s": load(False), "compiled_s": load(True)}))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        starts = []
        for _ in range(3):
            command = [sys.executable, "-c", START, cache]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            starts.append(json.loads(done.stdout.splitlines()[-1]))
            print(starts[-1], flush=True)
        size = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
    first, *later = (start["compiled_s"] for start in starts)
    result = {"starts": starts, "cache_bytes": size, "first_s": first, "later_s": min(later)}
    print(write_result("warm_up", result).read_text())


if __name__ == "__main__":
    main()
