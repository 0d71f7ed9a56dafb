"""A new scene, from the first byte of its upload to its place in the queue.

Owns the order of checks: everything about the input is validated here, before the scene is
stored, so whatever is queued can be generated. Files are received in a folder of their own and
become the scene's by one rename.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pydantic
from starlette.requests import ClientDisconnect
from worldstereo_client.schemas import SceneRequest

from actors.blobs import DEPTH, INPUT, SOURCE
from actors.full_storage import telling_full_storage
from actors.log_lines import log_ids
from configs.settings import UploadLimits, UriSettings
from deployments.archives import unpack
from deployments.errors import StoreAway, UploadError, UploadTooLarge, ValidationError
from deployments.folders import SceneFolder, SceneFolders
from deployments.json_body import parse_json
from deployments.keys import Caller
from deployments.multipart import ReceivedFile, Upload, UploadReceiver
from deployments.offers import Offers
from deployments.records import NewScene, SceneKind, SceneRecord, Submission
from deployments.remote_upload import RemoteUploads
from deployments.store import Store, check_queue
from deployments.uris import UriReader
from worldstereo.builder.parameters import BuildParameters, trajectory_ids
from worldstereo.builder.specs import refused
from worldstereo.config import ModelConfig, Variant, is_distilled, variant_named
from worldstereo.errors import ParameterError
from worldstereo.formats.scene_folder import read_scene

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_ARCHIVE_SUFFIX = re.compile(r"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

# Makes the receiver of a body, of where its files go, its Content-Type and the limits.
Form = Callable[[Path, str, UploadLimits], UploadReceiver]


class Submitter:
    """Takes uploads.

    Args:
        store: where scenes are queued.
        folders: where their files go.
        configs: config.json of each variant that is served.
        limits: on uploads.
        offers: what can be done beside generating clips.
        max_queued_scenes: how many may wait.
        max_validations: how many uploads are unpacked and validated at once.
        uris: where files may be fetched from; None: from nowhere.
    """

    def __init__(
        self,
        store: Store,
        folders: SceneFolders,
        configs: Mapping[Variant, ModelConfig],
        limits: UploadLimits,
        offers: Offers,
        *,
        max_queued_scenes: int,
        max_validations: int,
        uris: UriSettings | None = None,
    ) -> None:
        self._store = store
        self._folders = folders
        self._configs = configs
        self._limits = limits
        self._offers = offers
        self._max_queued = max_queued_scenes
        reader = UriReader(uris or UriSettings(), limits.max_upload_bytes)
        self._remote = RemoteUploads(reader, limits)
        self._validations = asyncio.Semaphore(max_validations)

    @property
    def max_queued_scenes(self) -> int:
        """How many scenes may wait."""
        return self._max_queued

    async def submit(
        self,
        body: AsyncIterator[bytes],
        content_type: str,
        content_length: str | None,
        idempotency_key: str | None,
        caller: Caller,
        *,
        form: Form = UploadReceiver,
        kind: SceneKind = "scene",
    ) -> SceneRecord:
        """Receive, check and queue a scene, or find the one that the key belongs to.

        Args:
            body: of the request.
            content_type, content_length, idempotency_key: its headers.
            caller: who sends it, and owns the scene.
            form: how the body is read.
            kind: what it is submitted as.

        Raises:
            InputError: anything about the upload; its class says what.
            IdempotencyConflict, QueueFull, PermissionDenied: as they say.
            StorageAway: there is no space for the upload, or nothing to keep it; nothing is kept.
        """
        with telling_full_storage():
            return await self._submit(
                body, content_type, content_length, idempotency_key, caller, form, kind
            )

    async def _submit(
        self,
        body: AsyncIterator[bytes],
        content_type: str,
        content_length: str | None,
        idempotency_key: str | None,
        caller: Caller,
        form: Form,
        kind: SceneKind,
    ) -> SceneRecord:
        self._check_headers(content_length, idempotency_key)
        await asyncio.to_thread(self._check_queues, caller, idempotency_key)
        folder = await asyncio.to_thread(self._folders.new_upload)
        try:
            upload = await self._receive(folder, body, content_type, form)
            submission = _submission(idempotency_key, upload, caller.owner, kind)
            known = await asyncio.to_thread(self._known, submission)
            if known is not None:
                return known
            async with self._validations:
                return await asyncio.to_thread(
                    self._accept, folder, upload, submission, caller, kind
                )
        finally:
            await asyncio.to_thread(shutil.rmtree, folder.root, ignore_errors=True)

    def _check_queues(self, caller: Caller, key: str | None) -> None:
        if key is not None and self._store.has_key(caller.owner, key):
            return  # what was sent before needs no place in the queue
        check_queue(self._store.queued(), self._max_queued)
        if caller.max_queued is not None:
            check_queue(self._store.queued(caller.owner), caller.max_queued, "of this key")

    def _check_headers(self, content_length: str | None, idempotency_key: str | None) -> None:
        if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
            raise ValidationError(
                "unusable key",
                where="Idempotency-Key",
                allowed="1 to 255 visible ASCII characters",
            )
        announced = int(content_length) if content_length and content_length.isdecimal() else 0
        if announced > self._limits.max_upload_bytes:
            raise UploadTooLarge(
                "the request body is too large",
                got=f"{announced} bytes",
                allowed=f"at most {self._limits.max_upload_bytes} bytes",
            )

    async def _receive(
        self, folder: SceneFolder, body: AsyncIterator[bytes], content_type: str, form: Form
    ) -> Upload:
        json = content_type.partition(";")[0].strip().lower() == "application/json"
        if json and form is UploadReceiver:
            return await self._remote.receive(folder.root, body)
        receiver = form(folder.root, content_type, self._limits)
        try:
            async for chunk in body:
                await asyncio.to_thread(receiver.feed, chunk)
            return receiver.finish()
        except ClientDisconnect as error:
            raise UploadError("the sender went away before the body was complete") from error
        finally:
            receiver.close()

    def _known(self, submission: Submission | None) -> SceneRecord | None:
        """The scene that was sent with this key before."""
        scene_id = self._store.submission(submission) if submission is not None else None
        return self._store.scene(scene_id) if scene_id is not None else None

    def _accept(
        self,
        folder: SceneFolder,
        upload: Upload,
        submission: Submission | None,
        caller: Caller,
        kind: SceneKind,
    ) -> SceneRecord:
        """Unpack, validate, move into place, store; runs in a thread."""
        # Of many that are sent at once with one key, those behind the first need no validation.
        known = self._known(submission)
        if known is not None:
            return known
        request = _request(upload.parameters)
        caller.check_priority(request.priority)
        config = self._config(request)
        self._offers.check(request.outputs)
        self._offers.check_webhook(request.webhook_url)
        depth = _keep(folder.depth, "depth", upload.depth) if upload.depth else None
        if depth is not None and upload.depth_unit is not None:
            upload.depth_unit.path.rename(depth.with_suffix(".json"))
        if upload.scene is not None:
            name, trajectories = self._take_scene(folder, upload.scene, request, config, depth)
        else:
            assert upload.image is not None, "the receiver has seen to it"
            name, trajectories = self._take_image(folder, upload.image, request, config, depth)
        new = NewScene(
            id=secrets.token_hex(10),
            name=name,
            parameters=request,
            trajectories=trajectories,
            kind=kind,
            owner=caller.owner,
            priority=request.priority,
        )
        final = self._folders.scene(new.id).root
        final.parent.mkdir(parents=True, exist_ok=True)
        folder.root.rename(final)
        keep = False
        try:
            self._folders.keep(new.id, (INPUT, SOURCE, DEPTH))
            record = self._store.add_scene(
                new,
                submission,
                max_queued=self._max_queued,
                max_queued_of_owner=caller.max_queued,
            )
            keep = record.id == new.id
            with log_ids(scene=record.id):
                logger.info("scene accepted" if keep else "scene was accepted before")
            return record
        except StoreAway:
            keep = True  # it may be stored, and only the answer was lost
            raise
        finally:
            if not keep:
                self._folders.discard(new.id)

    def _take_scene(
        self,
        folder: SceneFolder,
        archive: ReceivedFile,
        request: SceneRequest,
        config: ModelConfig,
        depth: Path | None,
    ) -> tuple[str, tuple[str, ...]]:
        """Unpack and validate a scene folder; its name and the ids of its trajectories."""
        if request.build is not None:
            raise ValidationError(
                "only an image can be built from",
                where="parameters: build",
                got="the part scene",
                allowed="the part image",
            )
        unpacked = folder.root / "unpacked"
        unpacked.mkdir()
        top = unpack(archive.path, unpacked, self._limits)
        sent_as = top.name if top != unpacked else _ARCHIVE_SUFFIX.sub("", archive.name)
        name = request.name or scene_name(sent_as)
        folder.input.mkdir()
        top.rename(folder.input / name)
        scene = read_scene(
            folder.input / name,
            scale_map=config.scale_map,
            nframe=config.nframe,
            align_nframe=request.align_nframe,
            task_type=request.task_type,
            depth=depth,
            needs_depth=self._offers.depth_estimator is None,
        )
        archive.path.unlink()
        shutil.rmtree(unpacked, ignore_errors=True)
        return name, tuple(trajectory.id for trajectory in scene.trajectories)

    def _take_image(
        self,
        folder: SceneFolder,
        image: ReceivedFile,
        request: SceneRequest,
        config: ModelConfig,
        depth: Path | None,
    ) -> tuple[str, tuple[str, ...]]:
        """Validate an image; the scene's name and the ids of the trajectories it will have."""
        # Cutting views out of panoramas needs torch: not before there is one to look at.
        from worldstereo.builder.source import check_source

        parameters = build_parameters(request, config.nframe)
        kept = _keep(folder.source, "image", image)
        check_source(kept, depth, parameters, estimator=self._offers.depth_estimator is not None)
        folder.input.mkdir()
        name = request.name or scene_name(Path(image.name).stem)
        return name, trajectory_ids(parameters)

    def _config(self, request: SceneRequest) -> ModelConfig:
        variant = variant_named(request.variant)
        if variant not in self._configs:
            raise ParameterError(
                "this server does not offer the variant",
                where="variant",
                got=repr(request.variant),
                allowed=", ".join(self._configs),
            )
        if is_distilled(variant) and (request.guidance_scale or 0) > 1:
            raise ParameterError(
                "the distilled variant runs without guidance",
                where="guidance_scale",
                got=str(request.guidance_scale),
                allowed="none, or at most 1",
            )
        return self._configs[variant]


def refuse_encoding(content_encoding: str) -> None:
    """ValidationError for a body that is compressed as a whole: limits count the bytes sent."""
    if content_encoding.strip().lower() not in ("", "identity"):
        raise ValidationError(
            "compressed bodies are not taken",
            where="Content-Encoding",
            got=repr(content_encoding[:100]),
            allowed="none; archives are compressed in themselves",
        )


def build_parameters(request: SceneRequest, nframe: int) -> BuildParameters:
    """How the engine builds a scene from an image.

    Args:
        request: of the scene.
        nframe: keyframes of a clip of its model.

    Raises:
        ValidationError: the request does not say how.
        ParameterError: a trajectory is not one.
    """
    if request.build is None:
        raise ValidationError(
            "how to build a scene from the image is not said",
            where="parameters: build",
            got="nothing",
            allowed="an object with at least a prompt",
        )
    try:
        fields = request.build.model_dump(exclude_none=True)
        return BuildParameters.model_validate(fields | {"frames": nframe})
    except pydantic.ValidationError as error:
        raise refused(error, "build") from error


def scene_name(sent_as: str) -> str:
    """A scene's name from that of its archive or folder, with what is not allowed left out."""
    return _NAME.sub("-", sent_as).strip("-._")[:128] or "scene"


def _request(text: str) -> SceneRequest:
    return parse_json(SceneRequest, text, "parameters")


def _submission(key: str | None, upload: Upload, owner: str, kind: SceneKind) -> Submission | None:
    if key is None:
        return None
    # What the sender chose, not how it was wrapped: a boundary may differ between two tries.
    parts = [kind, _request(upload.parameters).model_dump_json()]
    for file in (upload.scene, upload.image, upload.depth, upload.depth_unit):
        parts += [file.sha256] if file else ["none"]
    # A depth map's suffix matters.
    parts += [upload.depth.name] if upload.depth else []
    return Submission(key, hashlib.sha256("\n".join(parts).encode()).hexdigest(), owner)


def _keep(folder: Path, stem: str, received: ReceivedFile) -> Path:
    """Move a file part into a folder of its own."""
    # The readers go by content; the suffix is kept because some formats are told apart by it.
    suffix = Path(received.name).suffix.lower()
    folder.mkdir()
    # .json is the name of what states a depth map's unit.
    usable = _SUFFIX.fullmatch(suffix) and suffix != ".json"
    kept = folder / f"{stem}{suffix if usable else ''}"
    received.path.rename(kept)
    return kept
