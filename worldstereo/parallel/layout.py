"""How many ranks share one clip and what each of them holds: settings, and what they may be.

Owns the three degrees and the refusal of those that a model cannot be split by, before anything
starts. Imports no torch, so that a server's front end may check a configuration. Leaves to
others: which layout is wise on which hardware (cluster/topology.py), and splitting (mesh.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worldstereo.config import ModelConfig, Variant, is_distilled
from worldstereo.errors import ParameterError
from worldstereo.models.source import BackboneConfig

# Pixels of a token's side: the factor of the Wan VAE; the patch size comes on top of it.
_PIXELS_PER_LATENT = 8
# Degrees that are named in a message.
_MOST_NAMED = 64
_BACKBONE_HEADS = "heads of the backbone"


class ParallelLayout(BaseModel):
    """The ranks of one model replica, one device each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cfg: Literal[1, 2] = Field(
        default=1, description="2: the two passes of a guided step run on different ranks"
    )
    ulysses: int = Field(
        default=1, ge=1, description="ranks that the tokens of one pass are split over"
    )
    fsdp: bool = Field(
        default=False, description="each rank keeps a part of the weights, whole blocks in turn"
    )

    @property
    def world_size(self) -> int:
        """Ranks of a replica."""
        return self.cfg * self.ulysses

    def __str__(self) -> str:
        sharded = ", weights sharded (fsdp)" if self.fsdp else ""
        return f"cfg {self.cfg} x ulysses {self.ulysses}{sharded}"


def tokens_per_frame(config: ModelConfig, backbone: BackboneConfig) -> dict[tuple[int, int], int]:
    """Tokens of one latent frame for each working size (height, width) of the model."""
    _, rows, columns = backbone.patch_size
    return {
        (height, width): (height // _PIXELS_PER_LATENT // rows)
        * (width // _PIXELS_PER_LATENT // columns)
        for height, width in config.scale_map
    }


def ulysses_degrees(config: ModelConfig, backbone: BackboneConfig) -> list[int]:
    """All degrees that a model's heads and the tokens of its frames can be split by.

    References come in any number, so the tokens of a single frame must divide; then those of any
    number of target or reference frames do.
    """
    counts = _divided(config, backbone).values()
    return [n for n in range(1, _MOST_NAMED + 1) if all(count % n == 0 for count in counts)]


def check_layout(
    layout: ParallelLayout, variant: Variant, config: ModelConfig, backbone: BackboneConfig
) -> None:
    """Refuse a layout that this model cannot be run in.

    Args:
        layout: the degrees that are wanted.
        variant: decides on whether steps are guided.
        config: the variant's configuration, with its working sizes.
        backbone: the base model's, with heads and patch size.

    Raises:
        ParameterError: names the degree, what does not divide, and all degrees that would do.
    """
    if layout.cfg > 1 and is_distilled(variant):
        raise ParameterError(
            "this variant runs one pass a step, there is nothing to share",
            where="parallel.cfg",
            got=str(layout.cfg),
            allowed="1",
            fix="use ulysses to split a pass, or more replicas",
        )
    if layout.fsdp and layout.world_size == 1:
        raise ParameterError(
            "one rank has nobody to share the weights with",
            where="parallel.fsdp",
            got="true with one rank",
            allowed="false, or more ranks: cfg x ulysses > 1",
        )
    for what, count in _divided(config, backbone).items():
        if count % layout.ulysses:
            degrees = ", ".join(map(str, ulysses_degrees(config, backbone)))
            raise ParameterError(
                f"{count} {what} cannot be split over {layout.ulysses} ranks",
                where="parallel.ulysses",
                got=str(layout.ulysses),
                allowed=degrees,
            )


def shares_control(layout: ParallelLayout, config: ModelConfig, backbone: BackboneConfig) -> bool:
    """Whether both guidance branches' ranks can split the ControlNet's work between them.

    What it computes is the same for both. Its heads and the tokens of every working size must
    divide by all ranks; where they do not, each branch computes all of it.
    """
    if layout.cfg == 1:
        return False
    counts = _divided(config, backbone)
    del counts[_BACKBONE_HEADS]
    return all(count % layout.world_size == 0 for count in counts.values())


def check_world_size(layout: ParallelLayout, ranks: int) -> None:
    """ParameterError where there are not as many processes as the layout has ranks."""
    if ranks != layout.world_size:
        raise ParameterError(
            "as many processes are needed as cfg x ulysses says",
            where="parallel",
            got=f"{ranks} for {layout}",
            allowed=str(layout.world_size),
        )


def _divided(config: ModelConfig, backbone: BackboneConfig) -> dict[str, int]:
    """Counts that the ulysses degree must divide, by what they are."""
    counts = {
        _BACKBONE_HEADS: backbone.num_attention_heads,
        "heads of the ControlNet": config.controlnet_cfg.num_heads,
    }
    for (height, width), tokens in tokens_per_frame(config, backbone).items():
        counts[f"tokens of a frame of {height}x{width}"] = tokens
    return counts
