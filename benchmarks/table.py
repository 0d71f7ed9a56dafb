"""Tables of measurements in the README and in docs, made from benchmarks/results.

``python -m benchmarks.table`` rewrites what stands between two markers in each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.environment import read_result
from benchmarks.tiny_table import tiny_table

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
MEASUREMENTS, TINY_MODEL = "measurements", "tiny model"
GB = 1e9
EIGHT = "memory, 8 references"

Result = dict[str, Any]
# What was measured, and the value.
Rows = list[tuple[str, str]]


def _render(result: Result) -> Rows:
    seconds = result["median_seconds_by_points"]
    most = max(seconds, key=int)
    what = f"21 frames of 480x768 rendered from {int(most):,} points"
    return [(what, f"{seconds[most]:.2f} s")]


def _planning(result: Result) -> Rows:
    return [
        (
            "33 trajectories planned against the memory bank",
            f"{1000 * result['batched_seconds']:.0f} ms",
        ),
        ("the same as a loop over targets", f"{result['loop_of_targets_ratio']:.0f} times as long"),
    ]


def _splats(result: Result) -> Rows:
    report = result["report"]
    what = (
        f"Gaussian splats of {report['training_images']} frames of "
        f"{result['height']}x{result['width']}, {report['parameters']['steps']} steps"
    )
    return [
        (what, f"{result['seconds_to_train']:.0f} s"),
        ("their PSNR on frames that were held out", f"{report['held_out_psnr']:.1f} dB"),
    ]


def _clip(result: Result) -> Rows:
    clip = result["clip"]
    way = "compiled" if result.get("options", {}).get("compile") else "plain"
    parts = (result["encode_s"], result["denoise_s"], result["decode_s"])
    others = (result["allocated_after_load_bytes"] - result["transformer_bytes"]) / GB
    return [
        (
            f"{result['parameters'] / GB:.1f} B parameters and {others:.1f} GB of VAE and encoders "
            "loaded (files cached)",
            f"{result['load_s']:.0f} s",
        ),
        (f"{clip}, {way}: one forward", f"{result['forward_median_s']:.2f} s"),
        (
            "the whole clip: encode + denoise + decode",
            " + ".join(f"{part:.1f}" for part in parts) + " s",
        ),
        ("peak GPU memory with them", f"{result['peak_bytes'] / GB:.0f} GB"),
    ]


def _forward(result: Result) -> Rows:
    ways = result["cases"][EIGHT]
    published = result["published_s"][EIGHT]
    rows = [(f"one forward, {EIGHT}: published code", f"{published:.2f} s")]
    for way, row in ways.items():
        error = row.get("relative_l2_error")
        told = "" if error is None else f", relative L2 to plain {error:.4f}"
        rows.append((f"one forward, {EIGHT}: {way}", f"{row['forward_s']:.2f} s{told}"))
    return rows


def _forward_short(result: Result) -> Rows:
    ways = result["cases"][EIGHT]
    best = "compiled, FlashAttention-3"
    return [
        (
            "one forward, 8 references: published code / plain / compiled / with FlashAttention-3",
            f"{result['published_s'][EIGHT]:.2f} / "
            + " / ".join(f"{ways[way]['forward_s']:.2f}" for way in ("plain", "compiled", best))
            + " s",
        ),
        (
            "the same with matrix products in 8 bits / attention too",
            f"{ways[best + ', fp8 products']['forward_s']:.2f} / "
            f"{ways['compiled, fp8 products and attention']['forward_s']:.2f} s",
        ),
    ]


def _sharding(result: Result) -> Rows:
    two = result["forward, two GPUs"]["seconds"]
    step = result["guided step, one GPU"]["seconds"]
    shared = result["guided step, two GPUs"]["seconds"]
    rows = [
        (
            "one forward, 1 reference, one GPU",
            f"{result['forward, one GPU, 1 reference']['seconds']:.2f} s",
        ),
        (
            f"one forward, {EIGHT}, two GPUs (published code: "
            f"{result['published_s']['two GPUs']:.2f} s)",
            f"{two:.2f} s, {result['speedup']['forward']:.2f} times one GPU",
        ),
        (
            "a guided step, one GPU",
            f"{step:.2f} s, {result['guided_step_ratio']:.2f} times a forward",
        ),
        (
            "a guided step, one branch a GPU",
            f"{shared:.2f} s, {result['speedup']['guided step']:.2f} times one GPU",
        ),
    ]
    for what in ("encode", "decode"):
        one, both = (result[f"VAE {what}, {gpus}"]["seconds"] for gpus in ("one GPU", "two GPUs"))
        rows.append((f"VAE, {what} 21 keyframes, one / two GPUs", f"{one:.2f} / {both:.2f} s"))
    memory = result["memory"]
    rows.append(
        (
            "peak memory of a forward; over weights, what steps share and one block",
            f"{memory['peak_bytes'] / GB:.1f} GB; {memory['peak_over_expected']:.3f}",
        )
    )
    golden = [row for name, row in result.items() if name.startswith("golden ")]
    for key, what in (
        ("bf16_against_float32", "bf16 against the recorded float32 outputs"),
        ("sharded_against_alone", "two GPUs against one, the same cases in bf16"),
    ):
        worst = max(row[key] for row in golden)
        rows.append((f"relative L2, {what}, worst of {len(golden)}", f"{worst:.4f}"))
    rows.append(
        (
            "relative L2, two GPUs against one, full size, random weights",
            f"{result['relative_l2, tokens shared']:.4f}",
        )
    )
    return rows


def _sharding_short(result: Result) -> Rows:
    return _sharding(result)[1:4]


def _exchange(result: Result) -> Rows:
    ms = {
        name.removesuffix("_ms"): f"{value:.2f}" for name, value in result.items() if "_ms" in name
    }
    return [
        (
            "one exchange of a block's heads on two GPUs: sent / with packing / written by sender",
            f"{ms['all_to_all']} / {ms['by_heads']} / {ms['push']} ms",
        ),
        (
            "a product of the feed-forward: alone / with an exchange beside it",
            f"{ms['product']} / {ms['all_to_all_beside_product']} ms",
        ),
    ]


def _replica(result: Result) -> Rows:
    killed, whole = result["rank_killed"], result["undisturbed"]
    stages = whole["stage_s"]
    return [
        (
            "a served replica of two ranks, weights and tokens shared, not compiled: ready",
            f"{result['ready_s']:.0f} s",
        ),
        (
            "a clip of 4 steps through it: encode + denoise + decode",
            " + ".join(f"{stages[name]:.1f}" for name in ("encode", "denoise", "decode")) + " s",
        ),
        (
            "one rank killed (-9): told / its clip generated again to the same frames",
            f"after {killed['told_s']:.1f} / {killed['scene_completed_s']:.0f} s",
        ),
    ]


def _loading(result: Result) -> Rows:
    size = result["file_bytes"] / GB
    names = {
        "cfg 1 x ulysses 1": "one GPU",
        "cfg 1 x ulysses 2": "two GPUs, whole on each",
        "cfg 1 x ulysses 2, weights sharded (fsdp)": "two GPUs, sharded",
    }
    return [
        (
            f"{size:.0f} GB of safetensors (files cached) to {name}",
            f"{max(rank['seconds'] for rank in result[layout]):.1f} s, "
            f"{max(rank['device_bytes'] for rank in result[layout]) / GB:.1f} GB a GPU, "
            f"{max(rank['cpu_peak_bytes'] for rank in result[layout]) / 1e6:.0f} MB of CPU memory",
        )
        for layout, name in names.items()
    ]


def _attention(result: Result) -> Rows:
    kernels = {
        "sdpa, PyTorch's choice": "PyTorch's choice (cuDNN)",
        "sdpa flash, views": "FlashAttention-2, of PyTorch",
        "FlashAttention-3, of xformers 0.0.34": "FlashAttention-3",
        "sageattention": "SageAttention 1.0.6",
        "attention_fp8, compiled": "8 bits through cuDNN",
    }
    found = {row["kernel"]: row for row in result["rows"] if row["case"] == "self"}
    return [
        (
            f"self-attention of 41,760 tokens: {name}",
            f"{found[kernel]['median_ms']:.1f} ms, {found[kernel]['tflops']:.0f} TFLOP/s, "
            f"relative L2 {found[kernel]['relative_l2_error']:.4f}",
        )
        for kernel, name in kernels.items()
    ]


def _warm_up(result: Result) -> Rows:
    return [
        (
            "a compiled worker of the bundled model ready: first start / with its cache",
            f"{result['first_s']:.0f} / {result['later_s']:.0f} s",
        )
    ]


def _service(result: Result) -> Rows:
    routes, queue = result["routes"], result["queue"]["routes"]
    scene = "GET /v1/scenes/{id}"
    load, added = result["throughput"], result["added_per_trajectory_ms"]
    memory, watchers = result["memory_mb"], result["watchers"]

    def times(row: Result) -> str:
        return f"{row['latency_p50']:.0f} / {row['latency_p99']:.0f} ms"

    def parts(row: Result) -> str:
        return f"{row['ingress']:.0f} / {row['orchestrator']:.0f}"

    return [
        ("HTTP p50 / p99: health, which asks nothing", times(routes["GET /healthz"])),
        ("HTTP p50 / p99: a scene", times(routes[scene])),
        (
            f"the same with {result['queue']['scenes']:,} scenes that wait",
            times(queue[scene]),
        ),
        (
            "scenes a minute, two clips each, with an engine that needs no time",
            f"{load['scenes_per_minute']:.0f}",
        ),
        ("added to a clip by orchestration, median", f"{added['median']:.0f} ms"),
        (
            f"how late {watchers['watchers']:,} watchers hear of a step, p50 / p99",
            times(watchers),
        ),
        (
            "memory of ingress / orchestrator: before, with the long queue, with all watchers",
            f"{parts(memory['before'])}, {parts(memory['queue'])}, {parts(memory['watchers'])} MB",
        ),
    ]


def _recovery(result: Result) -> Rows:
    parts = dict.fromkeys(row["part"] for row in result["rows"])
    rows = []
    for part in parts:
        mine = [row for row in result["rows"] if row["part"] == part]
        told, complete = (max(row[key] for row in mine) for key in ("told_s", "complete_s"))
        rows.append(
            (
                f"{part} killed (-9), the worst of {len(mine)} stages: told / scene complete",
                f"after {told:.1f} / {complete:.1f} s",
            )
        )
    return rows


def _makespan(result: Result) -> Rows:
    return [
        (
            f"a scene of {row['trajectories']} trajectories, clips of {result['clip_s']:.0f} s, "
            f"{name}: over the exact schedule of {row['rounds']} rounds",
            f"{row['over_schedule'] - 1:.0%}, {row['overhead_per_round_s']:.2f} s a round",
        )
        for name, row in result.items()
        if name.endswith(" replicas")
    ]


# Result file and what makes rows of it, for each document.
README_ROWS: list[tuple[str, Callable[[Result], Rows]]] = [
    ("forward", _forward_short),
    ("sharding", _sharding_short),
    ("clip_compiled", _clip),
    ("render_cuda", _render),
    ("render_cpu", _render),
    ("splats_cuda", _splats),
    ("planning", _planning),
]
PERFORMANCE_ROWS: list[tuple[str, Callable[[Result], Rows]]] = [
    ("forward", _forward),
    ("sharding", _sharding),
    ("exchange", _exchange),
    ("replica", _replica),
    ("attention", _attention),
    ("loading", _loading),
    ("clip_compiled", _clip),
    ("clip", _clip),
    ("warm_up", _warm_up),
    ("makespan", _makespan),
    ("service", _service),
    ("recovery", _recovery),
]


def measurements(rows_of: list[tuple[str, Callable[[Result], Rows]]]) -> str:
    """Rows of several results as Markdown."""
    lines = ["| what | measured | on |", "|---|---|---|"]
    for name, rows in rows_of:
        result = read_result(name)
        hardware = result["environment"]["hardware"]
        on_cpu = result.get("device", "cpu") == "cpu" and not hardware["gpus"]
        place = f"{hardware['cores']} CPU cores" if on_cpu else hardware["gpus"][0]
        lines += [f"| {what} | {value} | {place} |" for what, value in rows(result)]
    return "\n".join(lines)


# What stands between which markers of which document.
DOCUMENTS: dict[Path, dict[str, Callable[[], str]]] = {
    README: {MEASUREMENTS: partial(measurements, README_ROWS), TINY_MODEL: tiny_table},
    PERFORMANCE: {MEASUREMENTS: partial(measurements, PERFORMANCE_ROWS)},
}


def with_table(document: Path) -> str:
    """A document's text with its tables between their markers."""
    text = document.read_text()
    for name, table in DOCUMENTS[document].items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(with_table(document))
