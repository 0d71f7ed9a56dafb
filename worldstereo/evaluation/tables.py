"""The report as text: plain tables that fit a terminal, a log and a note.

Owns which numbers are shown; all of them are in the JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldstereo.evaluation.report import MethodMeans, Report

MASKS = {"overall": "all", "covered": "covered", "holes": "holes", "seen holes": "seen holes"}


def tables(report: Report) -> str:
    """Every table of a report that has something to show, and its failures."""
    parts = [_heading(report), _images(report), _cameras(report), _consistency(report)]
    parts += [_reconstruction(report), _failures(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(report: Report) -> str:
    clips = sum(len(scene.clips) for scene in report.scenes)
    line = f"{len(report.scenes)} scenes, {clips} trajectories; {len(report.failures)} failures"
    if report.best_inpainting is not None:
        line += f"; best trivial in-painting: {report.best_inpainting}"
    return line


def _images(report: Report) -> str:
    if not any(means.psnr for means in report.means.values()):
        return ""
    head = ["pictures", "clips"]
    head += [f"PSNR {label}" for label in MASKS.values()]
    head += [f"SSIM {label}" for label in MASKS.values()]
    rows = [
        [method, str(means.clips)]
        + [_number(means.psnr.get(mask), 2) for mask in MASKS]
        + [_number(means.ssim.get(mask), 3) for mask in MASKS]
        for method, means in _rows(report)
        if means.psnr
    ]
    return text_table(head, rows)


def _cameras(report: Report) -> str:
    head = [
        "cameras",
        "failed clips",
        "failed frames",
        "RotErr mean",
        "RotErr sum",
        "TransErr self",
    ]
    head += ["TransErr Sim(3)", "TransErr metric", "ATE", "ATE/depth", "RPE t", "RPE rot"]
    rows = [
        [
            method,
            f"{means.camera_failed_clips} of {means.camera_clips}",
            f"{means.camera_failed_frames} of {means.camera_frames}",
            _number(means.rotation_mean_deg, 3),
            _number(means.rotation_sum_deg, 2),
            _number(means.translation_self_normalised_mean, 4),
            _number(means.translation_sim3_mean, 4),
            _number(means.translation_metric_mean, 4),
            _number(means.ate_sim3, 4),
            _number(means.ate_sim3_median_depths, 4),
            _number(means.rpe_translation, 4),
            _number(means.rpe_rotation_deg, 3),
        ]
        for method, means in _rows(report)
        if means.camera_clips
    ]
    return text_table(head, rows) if rows else ""


def _consistency(report: Report) -> str:
    rows = [
        [
            method,
            _number(means.consistency_psnr, 2),
            _number(means.consistency_psnr_on_holes, 2),
        ]
        for method, means in _rows(report)
        if means.consistency_psnr is not None
    ]
    return text_table(["consistency of trajectories", "PSNR", "PSNR holes"], rows) if rows else ""


def _reconstruction(report: Report) -> str:
    head = ["reconstruction", "within", "precision", "recall", "F1", "F1 of means", "AUC"]
    rows = [
        [
            method if number == 0 else "",
            f"{at.threshold:g}" + ("%" if at.given == "percent" else ""),
            *(_number(value, 3) for value in (at.precision, at.recall, at.f1, at.f1_of_means)),
            _number(means.auc, 3) if number == 0 else "",
        ]
        for method, means in _rows(report)
        for number, at in enumerate(means.reconstruction)
    ]
    return text_table(head, rows) if rows else ""


def _failures(report: Report) -> str:
    lines = [f"{f.scene}: {f.method}: {f.what}: {f.detail}" for f in report.failures]
    return "\n".join(["failures:", *lines]) if lines else ""


def _rows(report: Report) -> list[tuple[str, MethodMeans]]:
    return [(method, report.means[method]) for method in report.methods]


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other; the first to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def text(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(text(line) for line in lines)
