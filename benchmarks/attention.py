"""Which attention kernel suits a clip's self- and cross-attention, and what 8 bits cost.

Times every kernel that can be had on one GPU at the model's full size: medians of 5 runs after 2
that are not counted, and the relative L2 error of 256 rows of each head against float32. A kernel
that cannot run says why and is passed over. Queries, keys and values are Gaussian; keys have an
offset per channel, as the model's have; in the sharp case queries are 4 times as long, so that a
few tokens take most of the weight.

Run ``python -m benchmarks.attention --flash3 FOLDER``, FOLDER as flash_attention_3.py says; the
result is benchmarks/results/attention.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import flash_attention_3
from benchmarks.environment import write_result
from worldstereo.models import attention_fp8 as fp8

HEAD_SIZE = 128
HEADS = 40
TOKENS, TOKENS_WITHOUT_REFERENCES = 41_760, 30_240
TEXT, IMAGE = 512, 257
ROWS = 256
WARM_UP_RUNS, RUNS = 2, 5
SHARPNESS = 4.0
FLASH_3 = "FlashAttention-3, of xformers 0.0.34"
PACKAGES = ("nvidia-cudnn-frontend", "nvidia-cudnn-cu13", "sageattention", "xformers", "triton")

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Case:
    """Queries [1, S, H, D], keys and values [1, T, H, D], bfloat16, and some exact rows."""

    name: str
    query: Tensor
    key: Tensor
    value: Tensor
    rows: Tensor = field(init=False)
    exact: Tensor = field(init=False)  # [rows, H, D] float32

    def __post_init__(self) -> None:
        tokens = self.query.shape[1]
        self.rows = torch.linspace(0, tokens - 1, min(ROWS, tokens)).long().to(self.query.device)
        self.exact = torch.empty(len(self.rows), *self.query.shape[2:], device=self.query.device)
        for head in range(self.query.shape[2]):
            query = self.query[0, self.rows, head].float()
            key, value = self.key[0, :, head].float(), self.value[0, :, head].float()
            scores = query @ key.T * query.shape[-1] ** -0.5
            self.exact[:, head] = scores.softmax(-1) @ value

    @property
    def operations(self) -> int:
        """Floating-point operations of the two matrix products."""
        _, tokens, heads, size = self.query.shape
        return 4 * tokens * self.key.shape[1] * heads * size

    def copied(self, attend: Attention) -> Attention:
        """The same kernel on copies whose memory is contiguous as [1, H, S, D]."""
        given = (self.query, self.key, self.value)
        copies = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in given]
        return lambda *_: attend(*copies)

    def error(self, result: Tensor) -> float:
        """Relative L2 error of the rows of a result [1, S, H, D]."""
        difference = result[0, self.rows].float() - self.exact
        return float(difference.norm() / self.exact.norm())


def make_case(
    name: str, device: str, queries: int, keys: int, heads: int = HEADS, sharpness: float = 1.0
) -> Case:
    generator = torch.Generator(device).manual_seed(0)

    def gaussian(tokens: int) -> Tensor:
        return torch.randn(1, tokens, heads, HEAD_SIZE, generator=generator, device=device)

    offset = 2 * gaussian(1)
    key = (gaussian(keys) + offset).bfloat16()
    return Case(name, (sharpness * gaussian(queries)).bfloat16(), key, gaussian(keys).bfloat16())


def seconds(call: Callable[[], Any], device: str) -> list[float]:
    """Every counted run's seconds, on the GPU's clock where there is one."""
    times = []
    for _ in range(WARM_UP_RUNS + RUNS):
        if device == "cpu":
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return times[WARM_UP_RUNS:]


class Trial:
    """Runs, prints and keeps one row for each kernel and case."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.rows: list[dict[str, Any]] = []
        self._told: set[str] = set()

    def run(
        self,
        case: Case,
        kernel: str,
        attend: Attention,
        *,
        result: Callable[[], Tensor] | None = None,
        compare: bool = True,
    ) -> None:
        """One row: time, TFLOP/s and error of ``attend``, or why it failed.

        Args:
            case: the inputs.
            kernel: the row's name.
            attend: what is timed.
            result: what is compared with exact attention, if that is not what is timed.
            compare: whether anything is.
        """
        row: dict[str, Any] = {"case": case.name, "kernel": kernel}
        start = time.perf_counter()
        try:
            with torch.no_grad():
                if compare:
                    given = (case.query, case.key, case.value)
                    row["relative_l2_error"] = case.error(result() if result else attend(*given))
                times = seconds(lambda: attend(case.query, case.key, case.value), self.device)
            row["median_ms"] = 1000 * statistics.median(times)
            row["all_ms"] = [1000 * value for value in times]
            row["tflops"] = case.operations / statistics.median(times) / 1e12
            error = row.get("relative_l2_error")
            print(
                f"{case.name:22} {kernel:38} {row['median_ms']:9.3f} ms"
                f" {row['tflops']:7.1f} TFLOP/s  error {'-' if error is None else f'{error:.5f}'}"
                f"  (took {time.perf_counter() - start:.1f} s)",
                flush=True,
            )
        except Exception as error:  # noqa: BLE001  # a kernel that fails leaves the others
            row["failed"] = f"{type(error).__name__}: {error}"
            print(f"{case.name:22} {kernel:38} failed: {row['failed'][:300]}", flush=True)
            trace = traceback.format_exc()[:6000]
            if trace not in self._told:
                self._told.add(trace)
                print(trace, flush=True)
        self.rows.append(row)


def sdpa(*backends: SDPBackend) -> Attention:
    """PyTorch's attention, by its own choice or by one of these backends."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        views = [x.transpose(1, 2) for x in (query, key, value)]
        if not backends:
            return scaled_dot_product_attention(*views).transpose(1, 2)
        with sdpa_kernel(list(backends)):
            return scaled_dot_product_attention(*views).transpose(1, 2)

    return attend


def sage(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attend = importlib.import_module("sageattention").sageattn
    result: Tensor = attend(query, key, value, tensor_layout="NHD", is_causal=False)
    return result


def flash_3(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    result: Tensor = torch.ops.benchmarks.flash_attention_3(query, key, value, HEAD_SIZE**-0.5)[0]
    return result


def eight_bits(trial: Trial, case: Case) -> None:
    """cuDNN's kernel alone, without the rounding before it."""
    try:
        rounded = fp8.round_to_e4m3(case.query, case.key, case.value)
    except Exception:  # noqa: BLE001  # the other cases may still run
        traceback.print_exc()
        return

    def graph(*_: Tensor) -> Tensor:
        return fp8.cudnn_attention(*rounded[:5])

    trial.run(
        case,
        "cuDNN e4m3, the kernel alone",
        graph,
        result=lambda: fp8.restore(graph(), rounded),
    )


def rounding(trial: Trial, case: Case, name: str, round_: Callable[..., fp8.Rounded]) -> None:
    """What rounding takes beside the kernel; its TFLOP/s mean nothing."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return round_(query, key, value).query

    trial.run(case, f"rounding alone, {name}", attend, compare=False)


def bfloat16(trial: Trial, case: Case) -> None:
    """PyTorch's kernels on views and on copies, and Flash-Attention-3."""
    trial.run(case, "sdpa, PyTorch's choice", sdpa())
    for name, backend in (
        ("cuDNN", SDPBackend.CUDNN_ATTENTION),
        ("flash", SDPBackend.FLASH_ATTENTION),
    ):
        trial.run(case, f"sdpa {name}, views", sdpa(backend))
        trial.run(case, f"sdpa {name}, contiguous", case.copied(sdpa(backend)))
    trial.run(case, FLASH_3, flash_3)


def versions() -> dict[str, Any]:
    """Versions that tell kernels apart, and what is printed for a failure."""
    found: dict[str, Any] = {"cudnn_of_torch": torch.backends.cudnn.version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    try:
        cudnn = importlib.import_module("cudnn")
        found["cudnn_of_frontend"] = cudnn.backend_version()
    except Exception:  # noqa: BLE001  # bfloat16 kernels need none
        traceback.print_exc()
    return found


def measure(device: str, tokens: int, without_references: int, heads: int) -> list[dict[str, Any]]:
    trial = Trial(device)
    case = make_case("self", device, tokens, tokens, heads)
    print("PyTorch's choice:", chosen(case), flush=True)
    bfloat16(trial, case)
    trial.run(case, "attention_fp8, eager", fp8.attention_fp8)
    eight_bits(trial, case)
    rounding(trial, case, "eager", fp8.round_to_e4m3)
    trial.run(case, "attention_fp8, compiled", torch.compile(fp8.attention_fp8, fullgraph=True))
    rounding(trial, case, "compiled", torch.compile(fp8.round_to_e4m3, fullgraph=True))
    trial.run(case, "sageattention", sage)

    few = make_case("self, half the heads", device, tokens, tokens, heads // 2)
    trial.run(few, "sdpa cuDNN, views", sdpa(SDPBackend.CUDNN_ATTENTION))
    eight_bits(trial, few)
    del few
    sharp = make_case("self, sharp", device, tokens, tokens, heads, SHARPNESS)
    trial.run(sharp, "sdpa cuDNN, views", sdpa(SDPBackend.CUDNN_ATTENTION))
    trial.run(sharp, "attention_fp8, eager", fp8.attention_fp8)
    trial.run(sharp, "sageattention", sage)
    del sharp
    short = make_case("self, no references", device, without_references, without_references, heads)
    trial.run(short, "sdpa cuDNN, views", sdpa(SDPBackend.CUDNN_ATTENTION))
    eight_bits(trial, short)
    del short
    for name, context in (("text", TEXT), ("image", IMAGE)):
        cross = make_case(f"cross, {name}", device, without_references, context, heads)
        print("PyTorch's choice:", chosen(cross), flush=True)
        bfloat16(trial, cross)
        trial.run(cross, "attention_fp8, eager", fp8.attention_fp8)
        eight_bits(trial, cross)
        trial.run(cross, "sageattention", sage)
        del cross
    return trial.rows


def chosen(case: Case) -> str:
    """The backend that PyTorch's attention takes for a case's views."""
    try:
        views = [x.transpose(1, 2) for x in (case.query, case.key, case.value)]
        return str(SDPBackend(torch._fused_sdp_choice(*views)))
    except Exception as error:  # noqa: BLE001  # private; only told
        return f"unknown ({error})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--heads", type=int, default=HEADS)
    parser.add_argument("--flash3", type=Path, required=True)
    options = parser.parse_args()
    flash_attention_3.provide(options.flash3)
    start = time.perf_counter()
    found = versions()
    print(found, flush=True)
    without_references = min(options.tokens, TOKENS_WITHOUT_REFERENCES)
    rows = measure(options.device, options.tokens, without_references, options.heads)
    result = {
        "packages": found,
        "rows_compared": ROWS,
        "runs": RUNS,
        "rows": rows,
        "total_seconds": time.perf_counter() - start,
    }
    path = write_result("attention", result)
    print(f"{path} after {result['total_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
