"""A memory bank that nobody calls gives its memory up, and goes on from disk when it is called."""

import time
from pathlib import Path

import numpy as np

from actors.memory_bank import BankSize, BankSpec, MemoryBankActor
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.models.source import bundled_folder

PATIENCE_S = 30.0


def bank_of(kitchen: Path, output: Path, config: ModelConfig, idle_s: float) -> MemoryBankActor:
    return MemoryBankActor(
        BankSpec(
            service="tests",
            scene_id="one",
            input=kitchen,
            depth=None,
            task_type="auto",
            output=output,
            parameters=SceneParameters(),
            config=config,
            image_features=str(bundled_folder("worldstereo-tiny") / "dinov2"),
            local_files_only=True,
            idle_s=idle_s,
        )
    )


def wait_until_given_up(bank: MemoryBankActor) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while bank.size() != BankSize(0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bank_that_gave_its_memory_up_goes_on_as_one_that_did_not(
    kitchen: Path, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    idle, kept = (
        bank_of(kitchen, tmp_path / name, tiny_config, idle_s)
        for name, idle_s in (("idle", 0.05), ("kept", 3600.0))
    )
    clips = [clip.id for clip in idle.open("epoch").clips]
    assert [clip.id for clip in kept.open("epoch").clips] == clips
    for clip_id in clips:
        wait_until_given_up(idle)
        clip, _ = idle.prepare(clip_id)
        expected, _ = kept.prepare(clip_id)
        assert clip is not None
        assert expected is not None
        assert np.array_equal(clip.render_video, expected.render_video)
        assert (clip.references is None) == (expected.references is None)
        if clip.references is not None and expected.references is not None:
            assert clip.references.ids == expected.references.ids
            assert np.array_equal(clip.references.frames, expected.references.frames)
        wait_until_given_up(idle)
        for bank in (idle, kept):
            assert bank.commit(clip_id, np.asarray(expected.render_video), {})
    assert kept.size().frames > 0
    wait_until_given_up(idle)
    assert idle.prepare(clips[0])[1].committed
    assert idle.wanted("epoch")
    assert not idle.wanted("another")
    wait_until_given_up(idle)  # nothing of it goes on beside the next test


def test_nothing_is_given_up_under_a_call(
    kitchen: Path, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    bank = bank_of(kitchen, tmp_path, tiny_config, 0.05)
    bank.open("epoch")
    with bank._at_work():
        run = bank._scene()
        time.sleep(0.5)
        assert bank._run is run
    wait_until_given_up(bank)
