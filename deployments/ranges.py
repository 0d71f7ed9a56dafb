"""A file's answer whose refusals of a Range header are problem bodies, as all others are."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import Request
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from deployments import http_errors
from deployments.errors import RangeNotSatisfiable, ValidationError

_MOST_RANGES = 16


class RangedFile(FileResponse):
    """A file, whole or in the ranges that the request asks for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope)
        try:
            await asyncio.to_thread(_check, request.headers.get("range"), Path(self.path))
        except (ValidationError, RangeNotSatisfiable) as error:
            await http_errors.answer(error, request)(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


def _check(header: str | None, path: Path) -> None:
    """Refuse what Starlette would answer in its own words (RFC 9110, 14.1).

    Raises:
        ValidationError: no ranges of bytes, or too many.
        RangeNotSatisfiable: none of them is in the file.
    """
    if header is None:
        return
    unit, found, text = header.partition("=")
    ranges = [part.strip() for part in text.split(",")]
    size = path.stat().st_size
    if (
        unit.strip().lower() != "bytes"
        or not found
        or len(ranges) > _MOST_RANGES
        or not all(_is_range(part) for part in ranges)
    ):
        raise ValidationError(
            "no ranges of bytes",
            where="Range",
            got=repr(header[:100]),
            allowed=f"bytes=FIRST-LAST, bytes=FIRST- or bytes=-LENGTH; at most {_MOST_RANGES}",
        )
    for part in ranges:
        first, _, last = part.partition("-")
        begins = int(first) if first else size - int(last)
        if begins >= size:
            refused = RangeNotSatisfiable(
                "the file has no such bytes", where="Range", got=part, allowed=f"{size} bytes"
            )
            refused.file_bytes = size
            raise refused


def _is_range(text: str) -> bool:
    first, dash, last = text.partition("-")
    bounds = [bound for bound in (first, last) if bound]
    numbers = all(bound.isascii() and bound.isdecimal() and len(bound) < 19 for bound in bounds)
    in_order = not (first and last) or not numbers or int(first) <= int(last)
    return bool(dash) and bool(bounds) and numbers and in_order
