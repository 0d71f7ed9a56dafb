"""``worldstereo keys``: makes, lists, rotates and revokes the API keys of a server's store.

It opens the store itself, so it works while no server runs, and needs the store's own access
rights rather than a key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from worldstereo_client import options

from deployments.command_errors import engine_errors

if TYPE_CHECKING:
    from deployments.key_store import KeyStore
    from deployments.keys import ApiKey

DAY_S = 86_400.0

KeyId = Annotated[str, typer.Argument(metavar="ID", help="As in `worldstereo keys list`.")]
Config = Annotated[
    str, typer.Option("--config", help="Cluster, as serve takes it: its data and database.")
]
Data = Annotated[
    Path | None,
    typer.Option("--data", "--data-dir", help="Folder of the server's data, as serve takes it."),
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="SQLAlchemy URL of the server's store.")
]

keys_app = typer.Typer(
    name="keys", help="API keys of a server: create, list, rotate, revoke.", no_args_is_help=True
)


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what the key is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="read, write or admin (all scenes); again for more. Default: both."
        ),
    ] = None,
    expires_days: Annotated[
        float | None, typer.Option("--expires-days", min=0, help="Default: never.")
    ] = None,
    max_queued: Annotated[
        int | None, typer.Option("--max-queued", min=1, help="Scenes of the key that may wait.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, help="To one ingress replica.")
    ] = None,
    max_priority: Annotated[
        int, typer.Option("--max-priority", min=-100, max=100, help="Of its scenes.")
    ] = 0,
    config: Config = "local",
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Make a key and print it: the secret is shown this once and kept nowhere."""
    with engine_errors(), _opened(config, data, database_url) as store:
        key, text = store.create(
            name,
            _scopes(scope or ["read", "write"]),
            expires_in_s=None if expires_days is None else expires_days * DAY_S,
            max_queued=max_queued,
            requests_per_minute=requests_per_minute,
            max_priority=max_priority,
        )
        _tell_secret(key, text, as_json)


@keys_app.command("list")
def list_keys(
    config: Config = "local",
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """List all keys, without their secrets."""
    with engine_errors(), _opened(config, data, database_url) as store:
        keys = store.all_keys()
    if as_json:
        typer.echo(json.dumps([_shown(key) for key in keys]))
        return
    table = Table("id", "name", "scopes", "queued", "a minute", "priority", "made", "state")
    for key in keys:
        table.add_row(
            key.id,
            key.name,
            ",".join(key.scopes),
            str(key.max_queued or "-"),
            str(key.requests_per_minute or "-"),
            str(key.max_priority),
            _day(key.created_at),
            _state(key),
        )
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


@keys_app.command()
def rotate(
    key_id: KeyId,
    grace_hours: Annotated[
        float,
        typer.Option("--grace-hours", min=0, help="How long the present secret stays good."),
    ] = 24.0,
    config: Config = "local",
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Give a key a new secret, good at once, and print it; its scenes and limits stay."""
    with engine_errors(), _opened(config, data, database_url) as store:
        key, text = store.rotate(key_id, grace_hours * 3600)
        _tell_secret(key, text, as_json)


@keys_app.command()
def revoke(
    key_id: KeyId,
    config: Config = "local",
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key good for nothing, at once; its scenes stay, for admins."""
    with engine_errors(), _opened(config, data, database_url) as store:
        typer.echo(f"{store.revoke(key_id).id} revoked")


@contextmanager
def _opened(config: str, data: Path | None, database_url: str | None) -> Iterator[KeyStore]:
    from configs.loader import load_cluster
    from deployments.key_store import KeyStore
    from deployments.tables import store_url

    app = load_cluster(config).app
    store = KeyStore(store_url(data or app.data_dir, database_url or app.database_url))
    try:
        yield store
    finally:
        store.close()


def _scopes(names: list[str]) -> list[Any]:
    from deployments.keys import SCOPES
    from worldstereo.errors import ParameterError

    unknown = [name for name in names if name not in SCOPES]
    if unknown:
        raise ParameterError(
            "no such scope", where="--scope", got=", ".join(unknown), allowed=", ".join(SCOPES)
        )
    return names


def _tell_secret(key: ApiKey, text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**_shown(key), "key": text}))
        return
    typer.echo(f"key {key.id} of {key.name}; the secret is shown this once:", err=True)
    typer.echo(text)


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "max_queued": key.max_queued,
        "requests_per_minute": key.requests_per_minute,
        "max_priority": key.max_priority,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "old_secret_until": key.old_secret_until,
    }


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if not key.usable(time.time()):
        return "expired"
    return "good" if key.expires_at is None else f"good until {_day(key.expires_at)}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
