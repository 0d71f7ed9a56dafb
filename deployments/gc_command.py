"""``worldstereo gc``: remove ended scenes that are no longer kept, or say which would go.

Owns the command's options and what it prints; the rules are retention.py's. It works beside a
server that runs: what goes is decided in the store, scene by scene.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from worldstereo_client import options
from worldstereo_client.errors import ParameterError

from deployments.command_errors import engine_errors

if TYPE_CHECKING:
    from configs.settings import AppArgs
    from deployments.folders import SceneFolders
    from deployments.retention import Expired
    from deployments.store import Store

_DAY_S = 24 * 3600.0
_GB = 1e9


def gc(
    config: Annotated[
        str, typer.Option("--config", help="Cluster: a name in configs/clusters or a YAML file.")
    ] = "local",
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the server; default: the cluster's.")
    ] = None,
    max_age_days: Annotated[
        float | None,
        typer.Option("--max-age-days", min=0, help="Scenes that ended longer ago go."),
    ] = None,
    max_gb: Annotated[
        float | None,
        typer.Option("--max-gb", min=0, help="The oldest go while all ended ones take more."),
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Folders of scenes that the store does not know go too."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and how much it is.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Remove ended scenes that are no longer kept, by the configuration's limits or these."""
    with engine_errors():
        from configs.loader import load_cluster

        app = load_cluster(config).app
        retention: dict[str, Any] = app.retention.model_dump()
        if max_age_days is not None:
            retention["max_age_s"] = max(max_age_days * _DAY_S, 1e-9)
        if max_gb is not None:
            retention["max_bytes"] = int(max_gb * _GB)
        if not unknown and retention["max_age_s"] is None and retention["max_bytes"] is None:
            raise ParameterError(
                "nothing says what goes",
                where=f"retention of the configuration {config}",
                got="no limit",
                fix="name --max-age-days or --max-gb, or set app.retention there",
            )
        fields = {"data_dir": data or app.data_dir, "retention": retention}
        found = _collect(app.model_copy(update=fields), retention, unknown, dry_run)
    _print(found, dry_run, as_json)


def _collect(
    app: AppArgs, limits: dict[str, Any], unknown: bool, dry_run: bool
) -> list[dict[str, Any]]:
    """Remove what goes, unless it is a dry run; what it is, as plain rows."""
    from configs.settings import RetentionSettings
    from deployments.folders import SceneFolders
    from deployments.retention import Retention
    from deployments.store import Store
    from deployments.tables import sqlite_url

    folders = SceneFolders.of(app)
    file = folders.root / "store.sqlite"
    if app.database_url is None and not file.is_file():
        raise ParameterError(
            "no store of scenes", where=str(file), got="no file", fix="name its folder with --data"
        )
    store = Store(app.database_url or sqlite_url(file))
    try:
        retention = Retention(store, folders, RetentionSettings.model_validate(limits))
        rows = [_row(item) for item in retention.expired() if dry_run or retention.remove(item)]
        return rows + (_unknown(store, folders, dry_run) if unknown else [])
    finally:
        store.close()


def _row(item: Expired) -> dict[str, Any]:
    scene = item.scene
    return {
        "id": scene.id,
        "name": scene.name,
        "status": str(scene.status),
        "finished_at": scene.finished_at,
        "bytes": item.bytes,
        "reason": item.reason,
    }


def _unknown(store: Store, folders: SceneFolders, dry_run: bool) -> list[dict[str, Any]]:
    from deployments.removal import unknown_scenes
    from deployments.retention import folder_bytes

    rows = []
    for folder in unknown_scenes(store, folders):
        rows.append(
            {
                "id": folder.root.name,
                "name": None,
                "status": None,
                "finished_at": None,
                "bytes": folder_bytes(folder.root),
                "reason": "unknown",
            }
        )
        if not dry_run:
            folders.remove(folder.root.name)
    return rows


def _print(rows: Sequence[dict[str, Any]], dry_run: bool, as_json: bool) -> None:
    total = sum(row["bytes"] for row in rows)
    if as_json:
        typer.echo(json.dumps({"scenes": list(rows), "bytes": total, "removed": not dry_run}))
        return
    table = Table("id", "name", "state", "ended", "MB", "beyond", box=None, pad_edge=False)
    for row in rows:
        ended = row["finished_at"]
        table.add_row(
            row["id"],
            row["name"] or "",
            row["status"] or "",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(ended)) if ended else "",
            f"{row['bytes'] / 1e6:.1f}",
            row["reason"],
        )
    if rows:
        console = Console()
        (console if console.is_terminal else Console(width=160)).print(table)
    what = "would go" if dry_run else "removed"
    typer.echo(f"{len(rows)} scenes, {total / 1e6:.1f} MB {what}")
