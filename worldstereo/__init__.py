"""WorldStereo 2.0: the engine. Torch and diffusers, no Ray.

The names below are imported on first use, so that reading a scene folder needs no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldstereo.sampling.pipeline import WorldStereo, WorldStereoOutput

__all__ = ["WorldStereo", "WorldStereoOutput"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from worldstereo.sampling import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
