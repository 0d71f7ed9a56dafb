"""The panorama layout: a bank of start frames, and views with rendered trajectories.

Owns this layout in both published forms: views beside ``pano_bank``, or in ``render_results``
with ``pano_bank`` in either place.
"""

from __future__ import annotations

from worldstereo.errors import LayoutError
from worldstereo.formats.cameras import read_camera_table
from worldstereo.formats.canonical import is_iterative, panorama_order, view_kind
from worldstereo.formats.images import IMAGE_SUFFIXES, read_image
from worldstereo.formats.renders import (
    CAPTION,
    StartImage,
    check_name,
    check_number,
    read_rendered_trajectory,
    read_start_image,
    rejected_view,
    trajectory_folders,
    unique_ids,
    view_folders,
)
from worldstereo.formats.scene_files import SceneFiles
from worldstereo.types import BankFrame, TrajectoryInput

PANO_BANK, START_FRAME, PROMPT = "pano_bank", "start_frame.png", "prompt.json"


def read_panorama(
    files: SceneFiles, views_in: str, *, nframe: int
) -> tuple[tuple[BankFrame, ...], list[TrajectoryInput], dict[str, str], tuple[int, int]]:
    """Read and check a panorama folder.

    Args:
        files: the scene folder.
        views_in: the folder of the views inside it: "." or "render_results".
        nframe: keyframes of a clip.

    Returns:
        The start frames sorted by name, the trajectories in canonical order, what was skipped
        with the reason, and (height, width) of the first start image.

    Raises:
        LayoutError, CameraError, MediaError, PromptError: naming the file and what was found.
    """
    bank = read_pano_bank(files, _bank_folder(files, views_in))
    folders, skipped = _views(files, views_in)
    places = {
        (view, name): f"{path}/{folder}"
        for view, path in folders.items()
        for name, folder in unique_ids(trajectory_folders(files, path), path).items()
    }
    order = panorama_order(places)
    for view, name in sorted(places.keys() - set(order)):
        skipped[f"{view}/{name}"] = "the canonical order has no place for a trajectory of this name"
    if not order:
        raise LayoutError(
            "the scene holds no trajectory to generate",
            where=files.root.name if views_in == "." else views_in,
            got="; ".join(f"{view}: {why}" for view, why in skipped.items()) or "no views",
            allowed="view*, target*, reconstruct* or wonder* folders with trajectories",
        )
    check_number(len(order), files, views_in)
    starts: dict[str, StartImage] = {}
    trajectories = []
    for view, name in order:
        path = folders[view]
        after = _start_of_iterative(view, name, places) if is_iterative(view, name) else None
        if view not in starts:
            own = f"{path}/{START_FRAME}"
            shared = not files.has_file(own) and files.has_file(START_FRAME)
            starts[view] = read_start_image(files, START_FRAME if shared else own)
        trajectories.append(
            read_rendered_trajectory(
                files,
                places[view, name],
                view=view,
                start=starts[view],
                starts_after=after,
                prompts=[f"{path}/{CAPTION}", f"{path}/{PROMPT}", PROMPT, CAPTION],
                nframe=nframe,
            )
        )
    return bank, trajectories, skipped, starts[order[0][0]].size


def _bank_folder(files: SceneFiles, views_in: str) -> str:
    places = dict.fromkeys([PANO_BANK, f"{views_in}/{PANO_BANK}".removeprefix("./")])
    found = [place for place in places if files.has_folder(place)]
    if len(found) != 1:
        raise LayoutError(
            "a panorama scene has one bank of start frames",
            where=PANO_BANK,
            got=" and ".join(found) or "no such folder",
            allowed=f"{' or '.join(places)} with cameras.json and images",
        )
    return found[0]


def _views(files: SceneFiles, views_in: str) -> tuple[dict[str, str], dict[str, str]]:
    """Views to generate (name in ids -> folder), and those left out with the reason."""
    folders: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for view, folder in unique_ids(view_folders(files, views_in), views_in).items():
        path = f"{views_in}/{folder}".removeprefix("./")
        if view_kind(view) is None:
            skipped[view] = "not a view*, target*, reconstruct* or wonder* folder"
        elif (reason := rejected_view(files, path)) is not None:
            skipped[view] = reason
        else:
            folders[view] = path
    return folders, skipped


def _start_of_iterative(view: str, name: str, places: dict[tuple[str, str], str]) -> str:
    if (view, "traj0") not in places:
        raise LayoutError(
            "a trajectory that starts from the last frame of traj0 has no traj0",
            where=places[view, name],
            got=f"no trajectory traj0 in {view}",
            allowed=f"{view}/traj0 beside {view}/{name}",
        )
    return f"{view}/traj0"


def read_pano_bank(files: SceneFiles, folder: str) -> tuple[BankFrame, ...]:
    """Read and check ``cameras.json`` and the images of a pano_bank.

    Args:
        files: the scene folder.
        folder: the bank's folder inside it; images lie in ``images`` or beside cameras.json.

    Returns:
        One frame an image, sorted by name; ids are ``pano_bank/<name>``.

    Raises:
        LayoutError: images and cameras do not go together.
        CameraError, MediaError: a camera or an image cannot be used.
    """
    table = f"{folder}/cameras.json"
    files.file(table, "the start frames' camera file")
    images_in = f"{folder}/images" if files.has_folder(f"{folder}/images") else folder
    images: dict[str, str] = {}
    for file in files.files(images_in):
        stem, dot, suffix = file.rpartition(".")
        if dot + suffix.lower() in IMAGE_SUFFIXES:
            check_name(stem, images_in)
            if stem in images:
                raise LayoutError(
                    "two start frames have one name",
                    where=images_in,
                    got=f"{images[stem]} and {images_in}/{file}",
                    allowed="one image of each name",
                )
            images[stem] = f"{images_in}/{file}"
    if not 1 <= len(images) <= files.limits.max_start_frames:
        raise LayoutError(
            "the number of start frames is out of range",
            where=images_in,
            got=f"{len(images)} images",
            allowed=f"1 to {files.limits.max_start_frames}",
        )
    named = files.read_object(table, LayoutError)
    if set(named) != set(images):
        lacking, surplus = sorted(set(named) - set(images)), sorted(set(images) - set(named))
        raise LayoutError(
            "start frames and their cameras do not go together",
            where=table,
            got=f"cameras without an image: {', '.join(lacking)[:200] or 'none'}; "
            f"images without a camera: {', '.join(surplus)[:200] or 'none'}",
            allowed=f"one entry for each image of {images_in}, named as it is without suffix",
        )
    sizes = {}
    for stem, name in images.items():
        height, width = read_image(files.root / name, name, files.limits).shape[:2]
        sizes[stem] = (height, width)
    cameras = read_camera_table(files, table, sizes)
    return tuple(
        BankFrame(f"{PANO_BANK}/{stem}", files.root / images[stem], cameras[stem])
        for stem in sorted(images)
    )
