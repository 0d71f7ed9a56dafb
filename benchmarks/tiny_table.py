"""The README's table of what the bundled model does on held-out worlds.

Its rows come from the results that ``benchmarks.tiny_model`` wrote.
"""

from __future__ import annotations

from benchmarks.environment import read_result

# What the bundled model did: what a row is called, the report, and its method there; None: the best
# in-painting.
TINY_ROWS: list[tuple[str, str, str | None]] = [
    ("point render", "tiny_model", "point render"),
    ("the best trivial in-painting of it", "tiny_model", None),
    ("camera, 40 steps", "tiny_model", "worldstereo-camera"),
    ("memory, 40 steps", "tiny_model", "worldstereo-memory"),
    ("memory-dmd, 4 steps", "tiny_model", "worldstereo-memory-dmd"),
    (
        "the same, photographs of another world in its memory",
        "tiny_model_shuffled",
        "worldstereo-memory-dmd",
    ),
    ("exact pictures", "tiny_model", "exact pictures"),
    ("the start image's points alone", "tiny_model", "points of the start image"),
]
PERCENT = 1.0


def tiny_table() -> str:
    """What the bundled model does on held-out worlds, as Markdown."""
    head = ["PSNR", "in holes", "in holes that a reference sees", "SSIM in holes"]
    head += ["consistency in holes", f"F1 at {PERCENT:g} %"]
    whole = read_result("tiny_model")
    seeds = whole["settings"]["seeds"]
    clips = sum(len(scene["clips"]) for scene in whole["scenes"])
    what = f"{len(seeds)} held-out worlds, {clips} trajectories"
    lines = [f"| {what} | {' | '.join(head)} |", "|---" * (1 + len(head)) + "|"]
    for label, name, method in TINY_ROWS:
        result = read_result(name)
        assert result["settings"]["seeds"] == seeds, f"{name} is of other worlds"
        means = result["means"][method or result["best_inpainting"]]
        cloud = [
            at["f1"]
            for at in means["reconstruction"]
            if (at["given"], at["threshold"]) == ("percent", PERCENT)
        ]
        values = [
            *((means["psnr"].get(mask), 2) for mask in ("overall", "holes", "seen holes")),
            (means["ssim"].get("holes"), 3),
            (means["consistency_psnr_on_holes"], 2),
            (cloud[0] if cloud else None, 3),
        ]
        cells = ["" if value is None else f"{value:.{digits}f}" for value, digits in values]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)
