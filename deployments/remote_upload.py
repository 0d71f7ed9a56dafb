"""A submission that names an address: its JSON body, and the file that the server fetches for it.

Owns the body's format and how many downloads run at once; uris.py owns where from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from worldstereo_client.schemas import UriSubmission

from configs.settings import UploadLimits
from deployments.errors import UploadTooLarge
from deployments.json_body import parse_json
from deployments.multipart import Upload
from deployments.uris import UriReader

_FETCHES_AT_ONCE = 4


class RemoteUploads:
    """Takes submissions whose files lie elsewhere.

    Args:
        reader: fetches the files.
        limits: on the body.
    """

    def __init__(self, reader: UriReader, limits: UploadLimits) -> None:
        self._reader = reader
        self._limits = limits
        # Threads of its own: a slow place must not take those that the store is asked with.
        self._threads = ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="uri")

    async def receive(self, folder: Path, body: AsyncIterator[bytes]) -> Upload:
        """What the body names, fetched into ``folder``.

        Raises:
            ValidationError: the body is not JSON of this form.
            UriError, UploadTooLarge: as ``UriReader.read``.
        """
        received = bytearray()
        async for chunk in body:
            received += chunk
            if len(received) > self._limits.max_parameters_bytes:
                raise UploadTooLarge(
                    "the request body is too large",
                    got=f"more than {self._limits.max_parameters_bytes} bytes of JSON",
                    allowed=f"at most {self._limits.max_parameters_bytes} bytes",
                )
        sent = parse_json(UriSubmission, bytes(received), "body")
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(
            self._threads, self._reader.read, sent.uri, folder / "fetched.upload"
        )
        is_image = sent.parameters.build is not None
        return Upload(
            scene=None if is_image else file,
            image=file if is_image else None,
            depth=None,
            depth_unit=None,
            parameters=sent.parameters.model_dump_json(),
        )
