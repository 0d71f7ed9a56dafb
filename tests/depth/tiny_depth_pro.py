"""A Depth Pro of a few thousand seeded weights, saved as the published one is."""

import json
from pathlib import Path

import torch
from transformers import DepthProConfig, DepthProForDepthEstimation

SIZE = 32
# What the field-of-view head gives for any image, up to what the image adds.
DEGREES = 60.0


def _vision(size: int) -> dict[str, object]:
    return {
        "model_type": "dinov2",
        "image_size": size,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
    }


def network(*, field_of_view: bool = True, degrees: float = DEGREES) -> DepthProForDepthEstimation:
    """Two scales of patches of 16 pixels; weights of seed 0, heads moved to ordinary values."""
    config = DepthProConfig(
        patch_size=16,
        fusion_hidden_size=8,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1],
        scaled_images_overlap_ratios=[0.0, 0.5],
        scaled_images_feature_dims=[8, 8],
        merge_padding_value=1,
        use_fov_model=field_of_view,
        num_fov_head_layers=1,
        image_model_config=_vision(16),
        patch_model_config=_vision(16),
        fov_model_config=_vision(16),
    )
    torch.manual_seed(0)
    made = DepthProForDepthEstimation(config).eval()
    with torch.no_grad():
        made.head.layers[4].weight.mul_(0.03)
        made.head.layers[4].bias.fill_(0.3)
        if field_of_view:
            last = made.fov_model.head.layers[-1]
            last.weight.mul_(0.3)
            last.bias.fill_(degrees)
    return made


def save(folder: Path, **choices: object) -> Path:
    """Write ``network`` and its preprocessor_config.json, with the published fields."""
    network(**choices).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "antialias": False,
                "do_normalize": True,
                "do_rescale": True,
                "do_resize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_processor_type": "DepthProImageProcessorFast",
                "image_std": [0.5, 0.5, 0.5],
                "resample": 2,
                "rescale_factor": 1 / 255,
                "size": {"height": SIZE, "width": SIZE},
            }
        )
    )
    return folder
