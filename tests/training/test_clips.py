"""Batches are what the product gives the transformer for the same clips."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SEED, SIZE
from training.architecture import MINIATURE
from training.clips import Choice, Chooser, Clips, Scenes, error_weights
from training.generator import new_transformer, velocity
from training.worlds import ALIGNED, KEYFRAMES, TrainingScene, bank_positions
from worldstereo.config import SceneParameters
from worldstereo.formats.scene_folder import read_scene
from worldstereo.memory.plan import ScenePlan, keyframe_indices, plan_scene
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.sampling.conditions import LatentConditions
from worldstereo.sampling.vae import KeyframeVAE
from worldstereo.synthetic import make_world
from worldstereo.synthetic.scene_folder import write_synthetic_scene

PATHS = ("traj_eloop", "traj_up", "traj_right", "traj_left")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ScenePlan:
    """The product's own plan of the scene."""
    folder = write_synthetic_scene(
        make_world(SEED), tmp_path_factory.mktemp("scene") / "scene", SIZE, depth=False
    )
    scene = read_scene(folder, scale_map=[SIZE], nframe=KEYFRAMES, align_nframe=ALIGNED)
    return plan_scene(scene, SceneParameters(variant="worldstereo-memory"), KEYFRAMES)


@pytest.fixture(scope="module")
def model() -> WorldStereoTransformer:
    made = new_transformer(MINIATURE, "memory").eval()
    torch.nn.init.normal_(made.proj_out.weight, std=0.1)  # else it says nothing
    return made


def bank_place(frame_id: str) -> int:
    """Where a frame of the plan is in the bank of a training scene."""
    if frame_id.endswith("image.png"):
        return 0
    _, path, frame = frame_id.split("/")
    aligned = keyframe_indices(KEYFRAMES, ALIGNED)
    return bank_positions(PATHS.index(path)).start + aligned.index(int(frame))


def test_references_are_the_products(scenes: Scenes, plan: ScenePlan) -> None:
    chooser = Chooser(scenes, 0)
    bank, several = [0], 0
    for number, path in enumerate(PATHS):
        planned = plan.trajectory(f"renders/{path}")
        frames, index = chooser.retrieve(0, number, bank, 8)
        if not planned.reduced:
            assert frames == tuple(map(bank_place, planned.references))
            assert index == planned.ref_index
        several += len(frames) > 1
        bank += range(bank_positions(number).start, bank_positions(number).stop)
    assert several


def test_of_too_many_as_many_as_wanted_stay(scenes: Scenes) -> None:
    chooser = Chooser(scenes, 0)
    everything = list(range(33))
    many, _ = chooser.retrieve(0, 0, everything, 99)
    few, index = chooser.retrieve(0, 0, everything, 3)
    assert len(many) > 3
    assert len(few) <= 3
    assert set(few) <= set(many)
    assert list(index) == sorted(index)


def test_every_clip_of_a_batch_has_the_wanted_number(scenes: Scenes) -> None:
    choice = Chooser(scenes, 0).choose(16, 2)
    assert choice.frames.shape == choice.ref_index.shape == (16, 2)
    assert all(len(set(row)) == 2 for row in choice.frames.tolist())
    assert len(set(choice.paths.tolist())) > 1


def test_tensors_are_those_of_the_product(
    scenes: Scenes, scene: TrainingScene, vae: KeyframeVAE, model: WorldStereoTransformer
) -> None:
    later = keyframe_indices(KEYFRAMES, ALIGNED)
    choice = Choice(np.array([0]), np.array([2]), np.array([[0, 3]]), np.array([[0, 4]]))
    found = Clips(scenes, model).batch(choice)
    latents = LatentConditions(vae, "first_frame_only")

    def video(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.permute(3, 0, 1, 2)[None] / 127.5 - 1

    wanted = {
        "latents": vae.encode(video(scene.images[2])),
        "start": latents.start(video(scene.images[2, :1])[:, :, 0], KEYFRAMES),
        "render_latent": latents.render(video(scene.renders[2])),
        "reference_latent": latents.reference(
            video(torch.stack([scene.images[0, 0], scene.images[0, later[2]]]))
        ),
    }
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        assert torch.allclose(found[name], value, atol=0.02, rtol=0.01), name  # kept in bfloat16
    assert torch.equal(found["render_mask"][0, 0] > 0, scene.holes[2])
    assert torch.equal(found["camera_qt"][0], scene.camera_qt[2])
    assert torch.equal(found["camera_qt_ref"][0], scene.bank_qt[2, [0, 3]])


def test_every_scene_is_there_mirrored_too(
    scenes: Scenes, scene: TrainingScene, vae: KeyframeVAE, model: WorldStereoTransformer
) -> None:
    assert len(scenes) == 2
    choice = Choice(np.array([1]), np.array([2]), np.zeros((1, 0)), np.zeros((1, 0)))
    found = Clips(scenes, model).batch(choice)
    video = scene.mirrored().images[2].permute(3, 0, 1, 2)[None] / 127.5 - 1
    assert torch.allclose(found["latents"], vae.encode(video), atol=0.02, rtol=0.01)
    holes = scene.holes[2].flip(2)
    assert torch.equal(found["render_mask"][0, 0] > 0, holes)
    wanted = error_weights(holes[None, None].float(), scenes.channels)
    assert torch.equal(found["error_weights"], wanted)


def test_clips_of_a_batch_keep_their_own_places(
    scenes: Scenes, model: WorldStereoTransformer
) -> None:
    """Rotary tables of each clip, in place of one ``ref_index`` for all."""
    clips = Clips(scenes, model)
    frames, index = np.array([[0, 9], [0, 17]]), np.array([[0, 11], [0, 3]])
    both = clips.batch(Choice(np.array([0, 0]), np.array([0, 1]), frames, index))
    noisy, sigma = torch.randn_like(both["latents"]), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        together = velocity(model, both, noisy, sigma)
        for clip in range(2):
            one = {name: value[clip : clip + 1] for name, value in both.items()}
            alone = model(
                torch.cat([noisy[clip : clip + 1], one["start"]], dim=1),
                1000 * sigma[clip : clip + 1],
                one["text"],
                one["image"],
                one["render_latent"],
                one["render_mask"],
                one["camera_embedding"],
                one["reference_latent"],
                index[clip].tolist(),
                one["camera_qt"],
                one["camera_qt_ref"],
            )
            assert torch.allclose(together[clip : clip + 1], alone, atol=1e-5)
    assert together.abs().max() > 0.01


def test_captions_are_dropped_for_the_negative_prompt(
    scenes: Scenes, model: WorldStereoTransformer, worlds: Path
) -> None:
    choice = Chooser(scenes, 0).choose(4, 0)
    kept = Clips(scenes, model, 0.0).batch(choice)
    dropped = Clips(scenes, model, 1.0).batch(choice)
    assert torch.equal(dropped["text"], dropped["negative"])
    assert not torch.equal(kept["text"], kept["negative"])
    assert "reference_latent" not in kept
