"""One scene's memory as a named actor: plan, preparation of clips, ordered commit, its points.

Owns the actor around ``worldstereo.scene.SceneRun``: its name, who may still use it, and that it
comes back from disk when its process died. Every method can be repeated without harm, so Ray
repeats those that were under way. ``MemoryBankActor`` is what runs remotely, ``SceneBank`` the
local face of it.
"""

from __future__ import annotations

import gc
import logging
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from actors.blobs import INPUT, OUTPUT, PARTS, SceneBlobs
from actors.full_storage import telling_full_storage
from actors.log_lines import log_ids, set_up_logging
from actors.messages import Preparation
from actors.scene_opening import BankSpec as BankSpec
from actors.scene_opening import BuildSource as BuildSource
from actors.scene_opening import build_scene, open_scene
from worldstereo.errors import GenerationCancelled
from worldstereo.types import Clip, UInt8

if TYPE_CHECKING:
    from worldstereo.reconstruction.stage import Reconstruction
    from worldstereo.scene import SceneRun

logger = logging.getLogger(__name__)

NAMESPACE = "worldstereo"

# Of a call that was under way when the process died; the process itself is restarted for ever.
_CALL_RETRIES = 3


@dataclass(frozen=True)
class BankSize:
    """What a memory bank holds: images of frames, and their bytes."""

    frames: int
    bytes: int


@dataclass(frozen=True)
class SceneStage:
    """What is being done for the scene as a whole; ``steps`` 0: nobody can say of how much."""

    name: str
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class PlannedClip:
    """A trajectory as the plan has it; ``depends_on`` must be committed before it starts."""

    id: str
    position: int
    depends_on: tuple[str, ...]


@dataclass(frozen=True)
class OpenedScene:
    """The plan in canonical order, and the trajectories whose results are on disk."""

    clips: tuple[PlannedClip, ...]
    committed: frozenset[str]


class MemoryBankActor:
    """The remote side; all methods but ``wanted``, ``stage``, ``size``, ``stop`` share a thread."""

    def __init__(self, spec: BankSpec) -> None:
        self._spec = spec
        self._run: SceneRun | None = None
        self._reconstruction: Reconstruction | None = None
        # The outputs that were written, and the clips that they were written of.
        self._written: tuple[frozenset[str], frozenset[str]] | None = None
        self._epoch: str | None = None
        self._blobs = _blobs_of(spec)
        self._stage = SceneStage("open")
        self._stopped = False
        self._working, self._used_at = threading.Lock(), time.monotonic()
        set_up_logging("memory bank", spec.logging)
        if spec.idle_s is not None:
            threading.Thread(
                target=self._give_up_when_idle, args=[spec.idle_s], daemon=True
            ).start()

    def open(self, epoch: str) -> OpenedScene:
        """Plan the scene, or read its plan, and serve attempts of ``epoch`` alone from now on.

        Raises:
            InputError: the scene's folder or its parameters cannot be used.
            CheckpointError: the model's configuration or the feature network is missing.
            StorageFull: there is no space for the plan, or for what is built.
        """
        from worldstereo.formats.manifest import MANIFEST

        with self._at_work(), log_ids(scene=self._spec.scene_id):
            self._written = None
            with telling_full_storage():
                run = self._scene()
                # A finished scene that is resumed is not finished; its outputs may come out
                # otherwise.
                (run.output / MANIFEST).unlink(missing_ok=True)
                self._keep(OUTPUT)
            self._epoch = epoch
            clips = tuple(
                PlannedClip(planned.id, planned.position, tuple(planned.depends_on))
                for planned in run.plan.trajectories
            )
            logger.info("scene open: %d clips, %d committed", len(clips), len(run.committed))
        return OpenedScene(clips, frozenset(run.committed))

    def prepare(
        self, trajectory_id: str, attempt_id: str | None = None
    ) -> tuple[Clip | None, Preparation]:
        """The decoded clip with its references; None when it is committed already.

        Raises:
            StorageAway: what is on disk cannot be had, or kept, now.
        """
        with self._at_work(), self._about(trajectory_id, attempt_id), telling_full_storage():
            run = self._scene()
            if trajectory_id in run.committed:
                self._keep(OUTPUT)  # what was committed when the blob store was away
                logger.info("clip committed already")
                return None, Preparation(committed=True)
            clip = run.prepare(trajectory_id)
            logger.info("clip prepared")
            return clip, Preparation(committed=False)

    def commit(
        self,
        trajectory_id: str,
        frames: UInt8,
        generation: Mapping[str, Any],
        attempt_id: str | None = None,
    ) -> bool:
        """Write a clip's result and put it into the memory; False when it was there before.

        Args:
            trajectory_id: of the clip.
            frames: [F, height, width, 3].
            generation: what it took; goes into the result's metadata.
            attempt_id: that made it, for log lines.

        Raises:
            StorageFull: nothing was written.
        """
        with self._at_work(), self._about(trajectory_id, attempt_id), telling_full_storage():
            self._written = None
            first = self._scene().commit(trajectory_id, frames, dict(generation))
            self._keep(OUTPUT)
            logger.info("clip committed" if first else "clip was committed before")
            return first

    def reconstruct(self, outputs: Collection[str]) -> None:
        """Write what the result holds beside its clips, from the committed ones.

        When the blob store was away, the next call only takes there what was written.

        Raises:
            GenerationCancelled: ``stop`` was called.
            StorageFull: there is no space for an output.
            WorldStereoError: an output cannot be made; the clips stay.
        """
        from worldstereo.reconstruction.stage import Reconstruction

        # Whoever wants this one stopped says so again; an earlier word was about an earlier one.
        self._stopped = False
        with self._at_work(), log_ids(scene=self._spec.scene_id):
            run = self._scene()
            if self._reconstruction is None:
                self._reconstruction = Reconstruction(run, self._spec.estimator)
            wanted = frozenset(outputs), frozenset(run.committed)
            with telling_full_storage():
                if self._written != wanted:
                    self._reconstruction.write(outputs, self._advance)
                    self._written = wanted
                self._keep(OUTPUT)

    def finish(self, states: Mapping[str, str]) -> None:
        """Write the manifest, with the state that each trajectory ended in.

        Where a blob store has all of it then, this node's own files go; a later call brings them.

        Raises:
            StorageFull: there is no space for it.
        """
        with self._at_work(), telling_full_storage():
            self._scene().finish(dict(states))
            self._keep(OUTPUT)
            self._leave_node()

    def stage(self) -> SceneStage:
        """What the other thread does, as far as it takes long."""
        return self._stage

    def size(self) -> BankSize:
        """What the memory holds now."""
        run = self._run
        return BankSize(0, 0) if run is None else BankSize(*run.memory_size)

    def stop(self) -> None:
        """End ``reconstruct``, if it runs, after the clip that it is at."""
        self._stopped = True

    def wanted(self, epoch: str) -> bool:
        """Whether attempts of this epoch still count; after a restart all do until ``open``."""
        return self._epoch in (None, epoch)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._working:
            try:
                yield
            finally:
                self._used_at = time.monotonic()

    def _give_up_when_idle(self, idle_s: float) -> None:
        """Drop the memory of a scene whose clips wait for long: all of it is on disk."""
        while True:
            time.sleep(idle_s / 4)
            with self._working:
                if self._run is not None and time.monotonic() - self._used_at > idle_s:
                    with log_ids(scene=self._spec.scene_id):
                        logger.info("memory is given up after %g s without a call", idle_s)
                    self._run = self._reconstruction = self._written = None
                    gc.collect()

    def _about(self, trajectory_id: str, attempt_id: str | None) -> AbstractContextManager[None]:
        return log_ids(scene=self._spec.scene_id, trajectory=trajectory_id, attempt=attempt_id)

    def _advance(self, name: str, step: int, steps: int) -> None:
        if self._stopped:
            raise GenerationCancelled("cancelled while the outputs were made")
        self._stage = SceneStage(name, step, steps)

    def _keep(self, part: str) -> None:
        """Take what is new on this node to the blob store, where there is one."""
        if self._blobs is not None:
            self._blobs.push(part)

    def _leave_node(self) -> None:
        """Remove the files that no other process of this node works with, once all are kept."""
        folder = self._spec.folder
        if self._blobs is None or folder is None:
            return
        self._run = self._reconstruction = self._written = None
        # What is not here any more was not removed: the next push must know nothing of it.
        self._blobs = _blobs_of(self._spec)
        for part in (INPUT, OUTPUT):
            try:
                shutil.rmtree(folder / part)
            except FileNotFoundError:
                continue
            except OSError as error:  # nothing is lost; it goes when the scene is deleted
                logger.warning("%s stays on this node: %s", folder / part, error)

    def _scene(self) -> SceneRun:
        if self._run is None:
            self._run = self._open_scene()
        return self._run

    def _open_scene(self) -> SceneRun:
        import torch

        # Rendering and features must not depend on how many cores this machine has.
        torch.set_num_threads(1)
        if self._blobs is not None:
            for part in PARTS:
                self._blobs.pull(part)
        if self._spec.build is not None and not self._spec.input.is_dir():
            self._stage = SceneStage("build")
            build_scene(self._spec, self._spec.build)
            self._keep(INPUT)
        self._stage = SceneStage("plan")
        return open_scene(self._spec)


def _blobs_of(spec: BankSpec) -> SceneBlobs | None:
    if spec.blobs is None:
        return None
    assert spec.folder is not None
    return spec.blobs.scene(spec.scene_id, spec.folder)


class SceneBank:
    """The local face of a remote ``MemoryBankActor``: every remote method, typed.

    Args:
        actor: handle of the actor.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    @classmethod
    def get_or_create(cls, spec: BankSpec, *, num_cpus: float) -> SceneBank:
        """The one actor of this scene in the cluster; blocks for a round trip or two."""
        remote = ray.remote(concurrency_groups={"control": 4})(MemoryBankActor)
        actor = remote.options(
            name=_prefix(spec.service) + spec.scene_id,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=_CALL_RETRIES,
            num_cpus=num_cpus,
        ).remote(spec)
        return cls(actor)

    @staticmethod
    def scenes(service: str) -> set[str]:
        """Ids of a service's scenes that have a memory bank; blocks for a round trip."""
        named = ray.util.list_named_actors(all_namespaces=True)
        names = [actor["name"] for actor in named if actor["namespace"] == NAMESPACE]
        prefix = _prefix(service)
        return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}

    @classmethod
    def of_scene(cls, service: str, scene_id: str) -> SceneBank:
        """The bank of a scene that has one; ValueError when it has gone."""
        return cls(ray.get_actor(_prefix(service) + scene_id, namespace=NAMESPACE))

    async def open(self, epoch: str) -> OpenedScene:
        """As ``MemoryBankActor.open``."""
        opened: OpenedScene = await self.actor.open.remote(epoch)
        return opened

    def prepare(self, trajectory_id: str, attempt_id: str | None = None) -> tuple[Any, Any]:
        """References to the clip and to the preparation of ``MemoryBankActor.prepare``."""
        call = self.actor.prepare.options(num_returns=2)
        clip, preparation = call.remote(trajectory_id, attempt_id)
        return clip, preparation

    def commit(
        self,
        trajectory_id: str,
        frames: Any,
        generation: Mapping[str, Any],
        attempt_id: str | None = None,
    ) -> Any:
        """Reference to the answer of ``MemoryBankActor.commit``; ``frames`` is a reference too."""
        return self.actor.commit.remote(trajectory_id, frames, generation, attempt_id)

    async def finish(self, states: Mapping[str, str]) -> None:
        """As ``MemoryBankActor.finish``."""
        await self.actor.finish.remote(states)

    async def reconstruct(self, outputs: Collection[str]) -> None:
        """As ``MemoryBankActor.reconstruct``."""
        await self.actor.reconstruct.remote(outputs)

    async def stage(self) -> SceneStage:
        """As ``MemoryBankActor.stage``."""
        stage: SceneStage = await self.actor.stage.options(concurrency_group="control").remote()
        return stage

    async def size(self) -> BankSize:
        """As ``MemoryBankActor.size``."""
        size: BankSize = await self.actor.size.options(concurrency_group="control").remote()
        return size

    async def stop(self) -> None:
        """As ``MemoryBankActor.stop``."""
        await self.actor.stop.options(concurrency_group="control").remote()

    async def wanted(self, epoch: str) -> bool:
        """As ``MemoryBankActor.wanted``."""
        answer: bool = await self.actor.wanted.options(concurrency_group="control").remote(epoch)
        return answer

    def close(self) -> None:
        """End the process for good; what was committed stays on disk. Twice is harmless."""
        ray.kill(self.actor, no_restart=True)


def _prefix(service: str) -> str:
    return f"{service}-scene-"
