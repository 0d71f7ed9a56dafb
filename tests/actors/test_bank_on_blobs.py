"""A memory bank whose node is lost with all its files comes back from the blob store elsewhere."""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.blobs import BlobStore, BlobStoreAway
from actors.memory_bank import BankSpec, MemoryBankActor
from tests.actors.s3 import s3_server
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.models.source import bundled_folder
from worldstereo.reconstruction.stage import OnStage, Reconstruction


@pytest.fixture
def bucket() -> Iterator[BlobStore]:
    with s3_server() as store:
        yield store


def spec_of(node: Path, blobs: BlobStore, config: ModelConfig) -> BankSpec:
    """The bank of the scene ``one`` on a node."""
    folder = node / "scenes" / "one"
    return BankSpec(
        service="tests",
        scene_id="one",
        input=folder / "input" / "kitchen",
        depth=None,
        task_type="auto",
        output=folder / "output",
        parameters=SceneParameters(),
        config=config,
        image_features=str(bundled_folder("worldstereo-tiny") / "dinov2"),
        local_files_only=True,
        blobs=blobs,
        folder=folder,
    )


def away_from(blobs: BlobStore) -> BlobStore:
    """The same blobs where nobody answers."""
    down = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 1}}}
    return replace(blobs, options={**blobs.options, **down})


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_bank_comes_back_on_another_node(
    kitchen: Path, tiny_config: ModelConfig, bucket: BlobStore, tmp_path: Path
) -> None:
    here, there = (spec_of(tmp_path / node, bucket, tiny_config) for node in ("here", "there"))
    assert here.folder is not None
    shutil.copytree(kitchen, here.input)
    bucket.scene("one", here.folder).push("input")
    bank = MemoryBankActor(here)
    clips = [clip.id for clip in bank.open("first").clips]
    prepared, _ = bank.prepare(clips[0])
    assert prepared is not None
    frames = np.asarray(prepared.render_video)
    assert bank.commit(clips[0], frames, {"seed": 1})
    before = content(here.output)

    shutil.rmtree(tmp_path / "here")
    bank = MemoryBankActor(there)
    opened = bank.open("second")
    assert opened.committed == {clips[0]}
    assert content(there.output) == before
    assert bank.prepare(clips[0])[1].committed
    assert not bank.commit(clips[0], frames, {"seed": 1})
    prepared, _ = bank.prepare(clips[1])
    assert prepared is not None
    assert bank.commit(clips[1], np.asarray(prepared.render_video), {"seed": 1})
    bank.finish(dict.fromkeys(clips, "completed"))
    assert there.folder is not None
    index = bucket.scene("one", there.folder).index("output")
    assert "manifest.json" in index
    assert not there.output.exists(), "the blob store has all of it"
    assert not there.input.exists()

    # Ray repeats calls; a scene that failed is resumed.
    bank.finish(dict.fromkeys(clips, "completed"))
    assert bucket.scene("one", there.folder).index("output") == index
    assert bank.open("third").committed == set(clips)
    index.pop("manifest.json")
    assert bucket.scene("one", there.folder).index("output") == index
    assert set(content(there.output)) == set(index)


def test_what_the_blob_store_did_not_take_is_not_called_committed(
    kitchen: Path, tiny_config: ModelConfig, bucket: BlobStore, tmp_path: Path
) -> None:
    """The store goes away during a commit: it fails, and the next attempt brings it there."""
    spec = spec_of(tmp_path, bucket, tiny_config)
    assert spec.folder is not None
    shutil.copytree(kitchen, spec.input)
    bucket.scene("one", spec.folder).push("input")
    bank = MemoryBankActor(spec)
    (first, *_) = bank.open("first").clips
    prepared, _ = bank.prepare(first.id)
    assert prepared is not None
    working = bank._blobs
    bank._blobs = away_from(bucket).scene("one", spec.folder)
    with pytest.raises(BlobStoreAway, match="cannot be used"):
        bank.commit(first.id, np.asarray(prepared.render_video), {"seed": 1})
    with pytest.raises(BlobStoreAway, match="cannot be used"):
        bank.prepare(first.id)
    bank._blobs = working
    assert bank.prepare(first.id)[1].committed
    assert working is not None
    assert f"{first.id}/video.mp4" in working.index("output")


def test_outputs_are_not_made_again_while_the_blob_store_is_away(
    kitchen: Path,
    tiny_config: ModelConfig,
    bucket: BlobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = spec_of(tmp_path, bucket, tiny_config)
    assert spec.folder is not None
    shutil.copytree(kitchen, spec.input)
    bucket.scene("one", spec.folder).push("input")
    made: list[tuple[str, ...]] = []
    write = Reconstruction.write

    def counting(self: Reconstruction, outputs: Collection[str], on_stage: OnStage) -> list[Path]:
        made.append(tuple(outputs))
        return write(self, outputs, on_stage)

    monkeypatch.setattr(Reconstruction, "write", counting)
    bank = MemoryBankActor(spec)
    clips = [clip.id for clip in bank.open("first").clips]

    def commit(clip_id: str) -> None:
        prepared, _ = bank.prepare(clip_id)
        assert prepared is not None
        bank.commit(clip_id, np.asarray(prepared.render_video), {"seed": 1})

    commit(clips[0])
    working = bank._blobs
    assert working is not None
    bank._blobs = away_from(bucket).scene("one", spec.folder)
    for _ in range(3):
        with pytest.raises(BlobStoreAway):
            bank.reconstruct(("colmap",))
    bank._blobs = working
    before = set(working.index("output"))
    bank.reconstruct(("colmap",))
    assert made == [("colmap",)]
    assert set(working.index("output")) > before

    commit(clips[1])
    bank.reconstruct(("colmap",))
    bank.open("second")
    bank.reconstruct(("colmap",))
    assert len(made) == 3, "of another clip, and for another epoch"
