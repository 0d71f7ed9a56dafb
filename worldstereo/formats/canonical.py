"""The canonical order of a scene's trajectories, by their names, or as it lists them.

Owns names and order: a clip's noise, its memory and so its frames depend on them. Which folders
exist and what they hold is the readers' business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

RECONSTRUCTION_ORDER = ("traj_eloop", "traj_up", "traj_right", "traj_left")
VIEW_ORDER = ("traj2", "traj0", "traj1")
VIEW_KINDS = ("view", "target", "reconstruct", "wonder")


def id_part(folder: str) -> str:
    """A view's or trajectory's name in ids: its folder's with hyphens as underscores."""
    return folder.replace("-", "_")


def view_kind(view: str) -> str | None:
    """Which of ``VIEW_KINDS`` a view of a panorama scene is, by its prefix."""
    return next((kind for kind in VIEW_KINDS if view.startswith(kind)), None)


def is_iterative(view: str, name: str) -> bool:
    """Whether a panorama's trajectory starts from the last generated frame of its view's traj0."""
    return view_kind(view) == "reconstruct" and name == "traj1"


def panorama_order(ids: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sort the trajectories of a panorama scene.

    For each ``view*`` (sorted) traj2, traj0, traj1; all ``target*``; ``reconstruct*/traj0``;
    ``wonder*``; last ``reconstruct*/traj1``.

    Args:
        ids: (view, name) pairs as they are in ids.

    Returns:
        Those of the pairs that have a place in this order, in it.
    """
    ranked = []
    for view, name in ids:
        match view_kind(view):
            case "view" if name in VIEW_ORDER:
                ranked.append((0, view, VIEW_ORDER.index(name), name))
            case "target":
                ranked.append((1, view, 0, name))
            case "reconstruct" if name == "traj0":
                ranked.append((2, view, 0, name))
            case "wonder":
                ranked.append((3, view, 0, name))
            case "reconstruct" if name == "traj1":
                ranked.append((4, view, 0, name))
    return [(view, name) for _, view, _, name in sorted(ranked)]


def reconstruction_order(names: Iterable[str]) -> Iterator[str]:
    """The trajectories of one start image: the published four in their order, others by name."""
    known = {name: rank for rank, name in enumerate(RECONSTRUCTION_ORDER)}
    yield from sorted(names, key=lambda name: (known.get(name, len(known)), name))


def listed_order(listed: Iterable[str], names: Collection[str]) -> list[str] | None:
    """The trajectories of one start image in an order that the scene states.

    Args:
        listed: folder names.
        names: the trajectories' names in ids.

    Returns:
        The ids in the order of the list; None where it does not hold each of them once.
    """
    order = [id_part(folder) for folder in listed]
    return order if sorted(order) == sorted(names) else None
