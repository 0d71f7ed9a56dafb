"""Points in all directions: where they lie, how many, and what is left out."""

import numpy as np
import pytest

from tests.builder import box_room
from worldstereo.builder.panorama_cameras import view_camera
from worldstereo.builder.panorama_cloud import lift_surroundings, lift_view_and_surroundings
from worldstereo.builder.panorama_depth import ProvidedPanoramaDepth
from worldstereo.errors import MediaError
from worldstereo.geometry.equirectangular import cut_views, pixel_directions, view_pixels

# Coarser, the room's own walls are so steep from pixel to pixel that they count as edges.
ROWS = 512


@pytest.fixture(scope="module")
def room() -> tuple[np.ndarray, np.ndarray]:
    return box_room.panorama(ROWS)


def off_the_walls(points: np.ndarray) -> np.ndarray:
    """Relative distance of points [P, 3] from the surface that lies in their direction."""
    length = np.linalg.norm(points, axis=-1)
    _, true = box_room.trace(np.zeros(3), points / length[:, None])
    return np.asarray(np.abs(length / true - 1))


def test_points_lie_on_the_room_with_its_colours(room: tuple[np.ndarray, np.ndarray]) -> None:
    found = lift_surroundings(room[0], ProvidedPanoramaDepth(room[1]), ROWS)
    assert found.covered == 1
    assert off_the_walls(found.cloud.points).max() < 1e-4
    colors, _ = box_room.trace(np.zeros(3), found.towards)
    assert np.abs(colors - found.cloud.colors).max() <= 0.51
    # As many points in any direction: 60 degrees up to the pole is a fifteenth of the sphere.
    share = np.mean(found.towards[:, 2] > np.sin(np.radians(60)))
    assert share == pytest.approx((1 - np.sin(np.radians(60))) / 2, rel=0.03)
    assert off_the_walls(found.obstacles).max() < 1e-4
    assert len(found.obstacles) == pytest.approx(len(found.cloud) / 16, rel=0.1)


def test_edges_are_left_out(room: tuple[np.ndarray, np.ndarray]) -> None:
    """The block stands 3 m before the wall: nothing near its outline, in front of the sky too."""
    image, distance = room
    sky = np.where(pixel_directions(ROWS, 2 * ROWS)[..., 2] > 0.3, 0, distance)
    for values in (distance, sky.astype(np.float32)):
        found = lift_surroundings(image, ProvidedPanoramaDepth(values), ROWS)
        step = 1.5 * np.pi / ROWS
        lengths = np.linalg.norm(found.cloud.points, axis=-1)
        tilted = found.towards + np.array([0, step, 0]), found.towards - np.array([0, step, 0])
        for towards in tilted:
            _, beside = box_room.trace(
                np.zeros(3), towards / np.linalg.norm(towards, axis=-1, keepdims=True)
            )
            assert (beside / lengths < 1.5).mean() > 0.9999
    assert found.covered == pytest.approx(0.65, abs=0.01)
    assert found.towards[:, 2].max() < 0.31


def test_a_view_has_its_own_points_and_those_of_all_other_directions(
    room: tuple[np.ndarray, np.ndarray],
) -> None:
    source = ProvidedPanoramaDepth(room[1])
    around = lift_surroundings(room[0], source, ROWS)
    camera = view_camera(1).resized(96, 166)
    start = cut_views(room[0], camera)[0]
    lifted = lift_view_and_surroundings(start, camera, source, around)
    towards = lifted.cloud.points / np.linalg.norm(lifted.cloud.points, axis=-1, keepdims=True)
    _, _, seen = view_pixels(towards.astype(np.float64), camera)
    own = int(seen.sum())
    assert own > 0.9 * 250 * 432  # as dense as disks need, in pixels of the view
    assert (~seen).sum() == (~view_pixels(around.towards, camera)[2]).sum()
    assert np.quantile(off_the_walls(lifted.cloud.points[:own]), 0.99) < 0.02
    _, depth = box_room.views(camera)
    assert lifted.pivot_distance == pytest.approx(float(np.median(depth)), rel=5e-3)
    points, colors = lifted.tensors()
    assert points.shape == colors.shape
    assert float(colors.abs().max()) <= 1


def test_far_fields_are_contracted_alike_in_views_and_around() -> None:
    distance = np.full((64, 128), 1.0, dtype=np.float32)
    distance[20:30] = 1e5
    source = ProvidedPanoramaDepth(distance)
    panorama = np.zeros((64, 128, 3), dtype=np.uint8)
    around = lift_surroundings(panorama, source, 64)
    camera = view_camera(0).resized(60, 104)
    lifted = lift_view_and_surroundings(np.zeros((60, 104, 3), np.uint8), camera, source, around)
    assert around.limit == pytest.approx(8)
    for points in (around.cloud.points, lifted.cloud.points):
        reach = np.linalg.norm(points, axis=-1)
        assert reach.max() == pytest.approx(16, rel=1e-3)
        assert set(np.round(reach, 1)) <= {1.0, 16.0}


def test_a_view_of_nothing_is_refused() -> None:
    distance = np.zeros((64, 128), dtype=np.float32)
    distance[:, :20] = 1  # behind, to the left
    source = ProvidedPanoramaDepth(distance)
    panorama = np.zeros((64, 128, 3), dtype=np.uint8)
    around = lift_surroundings(panorama, source, 64)
    camera = view_camera(0).resized(60, 104)
    with pytest.raises(MediaError, match="view has no depth"):
        lift_view_and_surroundings(np.zeros((60, 104, 3), np.uint8), camera, source, around)
    distance[:] = 0
    distance[32, 0] = 1
    with pytest.raises(MediaError, match="too few points"):
        lift_surroundings(panorama, ProvidedPanoramaDepth(distance), 64)
