"""What the adapter calls of MoGe-2's package, without its network.

The package is on no index, so the adapter's contract is tested with this. Written from the
public description of ``moge.model.v2.MoGeModel``: a module that is loaded from a model.pt or a
repository, and whose ``infer`` takes an image [3, H, W] with values 0..1 and gives, of the image's
size, points, metric depth (infinite where the mask is False), mask, normals, and intrinsics for an
image that is one wide and one high.

Here depth comes from the image's red channel, the mask from its green one, and the field of view
from the weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# Red that stands for a depth that is not finite although the mask is True.
BROKEN_RED = 255
NEAR, FAR = 1.0, 11.0
LOADED: list[tuple[str, dict[str, Any]]] = []


class MoGeModel(torch.nn.Module):
    """The class that ``moge.model.v2`` exports; ``weights`` hold the horizontal field of view."""

    def __init__(self, degrees: float = 90.0) -> None:
        super().__init__()
        self.degrees = torch.nn.Parameter(torch.tensor(degrees))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        model_kwargs: dict[str, Any] | None = None,
        **hf_kwargs: Any,
    ) -> MoGeModel:
        assert model_kwargs is None
        name = str(pretrained_model_name_or_path)
        LOADED.append((name, hf_kwargs))
        model = cls()
        if Path(name).exists():
            model.load_state_dict(torch.load(name, map_location="cpu", weights_only=True)["model"])
        elif name != "Ruicheng/moge-2-vitl-normal":
            raise FileNotFoundError(f"no repository {name}")
        return model

    @torch.inference_mode()
    def infer(
        self,
        image: Tensor,
        num_tokens: int | None = None,
        resolution_level: int = 9,
        force_projection: bool = True,
        apply_mask: bool = True,
        fov_x: float | None = None,
        use_fp16: bool = True,
    ) -> dict[str, Tensor]:
        assert not self.training
        assert not use_fp16, "half precision on the CPU"
        assert image.dtype == torch.float32
        assert image.shape[0] == 3, image.shape
        assert image.ndim == 3, image.shape
        assert image.min() >= 0, image.min()
        assert image.max() <= 1, image.max()
        height, width = image.shape[1:]
        mask = image[1] < 0.5
        depth = NEAR + (FAR - NEAR) * image[0]
        depth = torch.where(image[0] == BROKEN_RED / 255, torch.nan, depth)
        depth = torch.where(mask, depth, torch.inf)
        focal = 0.5 / math.tan(math.radians(float(self.degrees)) / 2)
        intrinsics = torch.tensor([[focal, 0, 0.5], [0, focal * width / height, 0.5], [0, 0, 1.0]])
        return {
            "points": torch.zeros(height, width, 3),
            "depth": depth,
            "mask": mask,
            "intrinsics": intrinsics,
            "normal": torch.zeros(height, width, 3),
        }


def modules() -> dict[str, ModuleType]:
    """The modules of the public interface, for ``sys.modules``."""
    package, model, v2 = ModuleType("moge"), ModuleType("moge.model"), ModuleType("moge.model.v2")
    vars(v2).update(MoGeModel=MoGeModel)
    vars(model).update(v2=v2)
    vars(package).update(model=model)
    return {module.__name__: module for module in (package, model, v2)}
