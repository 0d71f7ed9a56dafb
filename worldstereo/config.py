"""Configuration that the engine reads: a published ``config.json`` and a scene's parameters.

Files are read here once; nothing below reads JSON, YAML or the environment.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from worldstereo.errors import CheckpointError, ParameterError

Variant = Literal["worldstereo-camera", "worldstereo-memory", "worldstereo-memory-dmd"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
LatentCondMode = Literal["full_vae", "first_frame_only"]

# [height, width]; used where a model's config.json has no scale_map.
DEFAULT_SCALE_MAP: tuple[tuple[int, int], ...] = (
    (480, 768),
    (512, 720),
    (576, 640),
    (608, 608),
    (640, 576),
    (720, 512),
    (768, 480),
)


def variant_named(name: str) -> Variant:
    """The published variant of this name; ParameterError for any other."""
    for variant in VARIANTS:
        if variant == name:
            return variant
    raise ParameterError(
        "unknown model variant", where="model_type", got=repr(name), allowed=", ".join(VARIANTS)
    )


def uses_memory(variant: Variant) -> bool:
    """Whether the variant attends to reference frames of the memory bank."""
    return variant != "worldstereo-camera"


# Steps and guidance of the published runs of the variants that are not distilled.
UNIPC_STEPS = 40
UNIPC_GUIDANCE = 5.0
# Bounds of what a caller may ask for.
MAX_STEPS = 1000
MAX_GUIDANCE = 100


class ControlNetConfig(BaseModel):
    """``controlnet_cfg`` of a published config.json; fields of other programs are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dim: int = Field(gt=0)
    ffn_dim: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    time_embed_dim: int = Field(gt=0)
    conv_out_dim: int = Field(gt=0)
    add_channels: int = Field(gt=0)
    mid_channels: int = Field(gt=0)
    mask_downsample: int = Field(default=1, gt=0)
    interp: bool = False
    update_ref: bool = True
    ref_embedding: bool = False
    main_camera_embedding: bool = False
    camera_embedding_dim: int = Field(default=7, gt=0)


class Distillation(NamedTuple):
    """Numbers of the distilled variant's schedule: training steps, their count, timestep shift."""

    start: int
    end: int
    steps: int
    shift: float


class ModelConfig(BaseModel):
    """A variant's published config.json; fields of other programs are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base_model: str
    controlnet_cfg: ControlNetConfig
    nframe: int = Field(ge=2, description="keyframes in a clip")
    scale_map: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        default=DEFAULT_SCALE_MAP, min_length=1, description="working sizes [height, width]"
    )
    latent_cond_mode: LatentCondMode
    negative_prompt: str = ""
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=MAX_GUIDANCE,
        description="guidance where the caller names none; None, as in the released "
        "configurations: that of the published runs",
    )
    # The distilled variant alone needs these: see ``distillation``.
    dmd_start_steps: int | None = Field(default=None, ge=0)
    dmd_end_steps: int | None = Field(default=None, gt=0)
    dmd_steps: int | None = Field(default=None, ge=1)
    gen_shift: float | None = Field(default=None, gt=0)

    @property
    def distillation(self) -> Distillation:
        """How the distilled variant samples.

        Raises:
            CheckpointError: config.json lacks one of the fields.
        """
        fields = ("dmd_start_steps", "dmd_end_steps", "dmd_steps", "gen_shift")
        values = [getattr(self, name) for name in fields]
        if None in values:
            raise CheckpointError(
                "the distilled variant's configuration lacks a field",
                where="config.json",
                got=f"no {fields[values.index(None)]}",
                allowed=", ".join(fields),
                fix="use the config.json that was published with the checkpoint",
            )
        return Distillation(*values)


def is_distilled(variant: Variant) -> bool:
    """Whether the variant samples in a few steps without guidance (distribution matching)."""
    return variant == "worldstereo-memory-dmd"


def published_steps(variant: Variant, config: ModelConfig) -> int:
    """Denoising steps of one clip where the caller names none."""
    return config.distillation.steps if is_distilled(variant) else UNIPC_STEPS


def published_guidance(variant: Variant, config: ModelConfig) -> float | None:
    """Guidance scale where the caller names none; None: the variant runs without guidance."""
    if is_distilled(variant):
        return None
    return UNIPC_GUIDANCE if config.guidance_scale is None else config.guidance_scale


class ComputeOptions(BaseModel):
    """How a transformer computes, on whatever device it is and over however many ranks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attention: str = Field(
        default="auto",
        description="attention backend by diffusers' name, or fp8; auto: what suits the device",
    )
    compile: bool = Field(
        default=False, description="compile both kinds of blocks; the first step of a size waits"
    )
    fp8: bool = Field(
        default=False, description="matrix products of the backbone's blocks in 8 bits, row-wise"
    )


class SceneParameters(BaseModel):
    """What a caller may choose about a scene's generation, whoever runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Variant = "worldstereo-memory-dmd"
    seed: int = Field(default=1024, ge=0, lt=2**63)
    align_nframe: int = Field(
        default=8, ge=1, description="frames of each clip that enter the memory bank"
    )
    max_reference: int = Field(default=8, ge=1, description="references of one clip at most")
    num_inference_steps: int | None = Field(
        default=None, ge=1, le=MAX_STEPS, description="None: the variant's published count"
    )
    guidance_scale: float | None = Field(
        default=None, ge=0, le=MAX_GUIDANCE, description="None: the model's own scale"
    )
    renderer: Literal["torch", "pytorch3d"] = "torch"
