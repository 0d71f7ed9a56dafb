"""The README's table of measurements, made from benchmarks/results.

``python -m benchmarks.table`` rewrites what stands between the two markers in README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- measurements -->", "<!-- end of measurements -->"
GB = 1e9

Result = dict[str, Any]


def _render(result: Result) -> list[tuple[str, str]]:
    seconds = result["median_seconds_by_points"]
    most = max(seconds, key=int)
    what = f"21 frames of 480x768 rendered from {int(most):,} points"
    return [(what, f"{seconds[most]:.2f} s")]


def _planning(result: Result) -> list[tuple[str, str]]:
    return [
        (
            "33 trajectories planned against the memory bank",
            f"{1000 * result['batched_seconds']:.0f} ms",
        ),
        ("the same as a loop over targets", f"{result['loop_of_targets_ratio']:.0f} times as long"),
    ]


def _splats(result: Result) -> list[tuple[str, str]]:
    report = result["report"]
    what = (
        f"Gaussian splats of {report['training_images']} frames of "
        f"{result['height']}x{result['width']}, {report['parameters']['steps']} steps"
    )
    return [
        (what, f"{result['seconds_to_train']:.0f} s"),
        ("their PSNR on frames that were held out", f"{report['held_out_psnr']:.1f} dB"),
    ]


def _clip(result: Result) -> list[tuple[str, str]]:
    clip = result["clip"]
    parts = (result["encode_s"], result["denoise_s"], result["decode_s"])
    return [
        (
            f"{result['parameters'] / GB:.1f} B parameters, VAE and encoders loaded (files cached)",
            f"{result['load_s']:.0f} s",
        ),
        (f"{clip}: one forward", f"{result['forward_median_s']:.2f} s"),
        (
            "the whole clip: encode + denoise + decode",
            " + ".join(f"{part:.1f}" for part in parts) + " s",
        ),
        ("peak GPU memory, UMT5 and CLIP in float32", f"{result['peak_bytes'] / GB:.0f} GB"),
    ]


# Result file -> its rows (what, value).
ROWS: dict[str, Callable[[Result], list[tuple[str, str]]]] = {
    "clip": _clip,
    "render_cuda": _render,
    "render_cpu": _render,
    "splats_cuda": _splats,
    "planning": _planning,
}


def table() -> str:
    """The table as Markdown."""
    lines = ["| what | measured | on |", "|---|---|---|"]
    for name, rows in ROWS.items():
        result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        hardware = result["environment"]["hardware"]
        on_cpu = result.get("device", "cpu") == "cpu" and not hardware["gpus"]
        place = f"{hardware['cores']} CPU cores" if on_cpu else hardware["gpus"][0]
        lines += [f"| {what} | {value} | {place} |" for what, value in rows(result)]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The README's text with the table between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
