"""Webhooks: what a server posts when a scene's state changes, and how a receiver checks it.

Messages are signed as the Standard Webhooks specification has it, so its libraries verify them,
too: ``webhook-signature`` holds ``v1,`` and the base64 of HMAC-SHA256 over id, timestamp and body.
Each message comes at least once, those of a scene in order: keep ``webhook-id`` to know repeats.

Example::

    event = verify(request.body, request.headers, secret="whsec_...")
    print(event.data.id, event.data.status)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

import pydantic

from worldstereo_client.errors import WorldStereoError
from worldstereo_client.schemas import WebhookEvent

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

# How old, or how far ahead, a message may be.
TOLERANCE_S = 300.0

_PREFIX = "whsec_"
_VERSION = "v1,"


class WebhookInvalid(WorldStereoError):
    """A message that no server with this secret sent just now; do not act on it."""


def sign(message_id: str, timestamp: int, body: bytes, secret: str) -> str:
    """The signature of a message.

    Args:
        message_id: of the message; the same each time that it is sent.
        timestamp: when it is sent, seconds since the epoch.
        body: as it is sent.
        secret: ``whsec_`` and base64.

    Raises:
        WebhookInvalid: the secret is none.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return _VERSION + base64.b64encode(digest).decode()


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> WebhookEvent:
    """The event in a message, if a server that knows the secret sent it just now.

    Args:
        body: as it was received, byte by byte.
        headers: of the request; upper and lower case are the same.
        secret: the one that the server signs with, ``whsec_`` and base64.
        tolerance_s: how old, or how far ahead, the message may be.
        now: seconds since the epoch; None: the time.

    Raises:
        WebhookInvalid: a header is missing, the signature is another's, or the time is past.
    """
    given = {name.lower(): value for name, value in headers.items()}
    missing = [n for n in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER) if not given.get(n)]
    if missing:
        raise WebhookInvalid("a header is missing", where=", ".join(missing))
    stamp = given[TIMESTAMP_HEADER]
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12):
        raise WebhookInvalid("not a time", where=TIMESTAMP_HEADER, got=repr(stamp[:50]))
    # The signature first: an unsigned message learns nothing of this machine's clock.
    wanted = sign(given[ID_HEADER], int(stamp), body, secret).encode()
    found = [part.encode() for part in given[SIGNATURE_HEADER].split()]
    if not any([hmac.compare_digest(part, wanted) for part in found]):
        raise WebhookInvalid(
            "the signature is not that of this body and secret",
            where=SIGNATURE_HEADER,
            fix="verify the bytes as they came, with the secret of this server",
        )
    apart = (time.time() if now is None else now) - int(stamp)
    if abs(apart) > tolerance_s:
        raise WebhookInvalid(
            "the message is too old, or from the future",
            where=TIMESTAMP_HEADER,
            got=f"{apart:.0f} s ago",
            allowed=f"at most {tolerance_s:g} s",
        )
    try:
        return WebhookEvent.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise WebhookInvalid("the body is no event", got=str(error)[:200]) from error


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise WebhookInvalid("not a webhook secret", allowed="whsec_ and base64", where="secret")
    return key
