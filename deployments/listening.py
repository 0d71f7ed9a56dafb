"""Where the HTTP API may listen: beyond loopback only with API keys, or where that was said.

Owns the rule and its words. That Ray's own ports stay on loopback is cluster/local.py's part.
"""

from __future__ import annotations

import logging

from cluster.loopback import is_loopback_host
from configs.settings import AppArgs
from deployments.key_store import KeyStore
from deployments.tables import store_url
from worldstereo.errors import ParameterError

logger = logging.getLogger(__name__)

_OPENS = "whoever reaches this address can send, see and cancel every scene"


def check_listening(host: str, args: AppArgs) -> None:
    """Whether ``worldstereo serve`` may listen on this address.

    Args:
        host: as it was named.
        args: of the application; its store is looked into for keys.

    Raises:
        ParameterError: the address is not loopback, and no keys are required, or there is none.
    """
    if is_loopback_host(host) or args.auth.allow_unauthenticated:
        return
    if not args.auth.required:
        raise ParameterError(
            f"{_OPENS}, since no API key is asked for",
            where="--host",
            got=repr(host),
            allowed="127.0.0.1 or localhost; any address with --require-keys",
            fix="make a key with `worldstereo keys create` and add --require-keys; or say "
            "--allow-unauthenticated, behind a proxy that asks for passwords",
        )
    keys = KeyStore(store_url(args.data_dir, args.database_url))
    try:
        if not keys.has_usable():
            raise ParameterError(
                "keys are required, and there is none that is good",
                where="--host",
                got=repr(host),
                fix="`worldstereo keys create NAME` with the same --data makes one",
            )
    finally:
        keys.close()


def opening(host: str, args: AppArgs) -> str:
    """What listening on an address that is not loopback opens, for whoever starts it."""
    if args.auth.required:
        return f"HTTP at {host}: other machines reach it, with an API key, in clear text"
    return f"HTTP at {host}, without keys: {_OPENS}"


def check_served_host(args: AppArgs) -> None:
    """The same for ``serve deploy``: looks at the HTTP options of the Serve that runs, if one does.

    A proxy that is put in front, or a Serve that starts later, is not seen from here.

    Raises:
        ParameterError: Serve listens beyond loopback, and no keys are required.
    """
    host = _serves_host()
    if host is None or is_loopback_host(host):
        return
    if not args.auth.required and not args.auth.allow_unauthenticated:
        raise ParameterError(
            f"{_OPENS}, since no API key is asked for",
            where="http_options.host",
            got=repr(host),
            allowed="127.0.0.1; any address with args.auth.required: true",
            fix="set args.auth.required and make keys with `worldstereo keys create`; or set "
            "args.auth.allow_unauthenticated, behind a proxy that asks for passwords",
        )
    logger.warning("%s", opening(host, args))


def _serves_host() -> str | None:
    """Address of the HTTP proxies; None where no Serve runs, or it has none."""
    import ray
    from ray.serve.context import _get_global_client

    if not ray.is_initialized():
        return None
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    host: str | None = client.http_config.host
    return host
