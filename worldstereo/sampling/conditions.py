"""What one clip's denoising is conditioned on, as the transformer takes it.

Owns the latent conditions (start frame, render, references), and the record that carries all
conditions through the denoising loop and how it is put together. Where the pixels, masks and
cameras come from is the business of ``inputs``; text and image are embedded in ``encoders``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from worldstereo.config import LatentCondMode, ModelConfig
from worldstereo.errors import ParameterError
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.sampling.arguments import Prompts
from worldstereo.sampling.encoders import TEXT_TOKENS, ImageEncoder, TextEncoder
from worldstereo.sampling.inputs import (
    ClipInputs,
    check_tensor,
    reference_index,
    to_unit_range,
)
from worldstereo.sampling.vae import KeyframeVAE

MASK_CHANNELS = 4
# One latent frame stands for this many pixel frames in Wan (the first for one).
PIXEL_FRAMES = 4
# Patches of CLIP's 224x224 pixels and the class token.
IMAGE_TOKENS = 257


@dataclass(frozen=True, eq=False)
class ReferenceConditions:
    """Frames of the memory bank that a memory variant attends to.

    Attributes:
        latent: [1, 36, R, h, w]: latents, ones in 4 channels, the same latents.
        index: for each reference the target frame that it serves first, less one.
        camera_qt: [1, F, 7] of the clip's cameras, or None where the model takes none.
        camera_qt_ref: [1, R, 7] of the references' cameras, likewise.
    """

    latent: torch.Tensor
    index: tuple[int, ...]
    camera_qt: torch.Tensor | None
    camera_qt_ref: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Guidance:
    """Classifier-free guidance: velocity = u + scale (c - u).

    Attributes:
        scale: g above.
        text: [1, 512, text_dim] embedding of the negative prompt, which u is predicted with.
    """

    scale: float
    text: torch.Tensor


@dataclass(frozen=True, eq=False)
class Conditions:
    """All conditions of one clip, on the transformer's device, float32.

    Attributes:
        start: [1, 20, F, h, w]: a mask of 4 channels that marks frame 0, then 16 latent channels.
        render_latent: [1, 16, F, h, w] keyframe latents of the point-cloud render.
        render_mask: [1, 1, F, H, W], 1 where nothing was rendered.
        camera_embedding: [1, 6, F, H, W] Plücker coordinates.
        text: [1, 512, text_dim] embedding of the prompt.
        image: [1, 257, image_dim] CLIP tokens of the start frame.
        guidance: None: one pass a step.
        references: None for the camera variant.
    """

    start: torch.Tensor
    render_latent: torch.Tensor
    render_mask: torch.Tensor
    camera_embedding: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor
    guidance: Guidance | None
    references: ReferenceConditions | None


class LatentConditions:
    """Latent conditions of clips through one VAE.

    Args:
        vae: encodes on its own device.
        mode: ``full_vae``: the start frame and zero frames after it are encoded as one causal
            video; ``first_frame_only``: the start frame by itself, then the latent of one zero
            frame for all later ones. The latter depends on the size alone and is kept.
    """

    def __init__(self, vae: KeyframeVAE, mode: LatentCondMode) -> None:
        self._vae = vae
        self._mode = mode
        self._zero_latents: dict[tuple[int, int], torch.Tensor] = {}

    def start(self, image: torch.Tensor, frames: int) -> torch.Tensor:
        """The 20 condition channels beside the noisy latents.

        Args:
            image: [1, 3, H, W] start frame in [-1, 1].
            frames: F.

        Returns:
            [1, 20, F, h, w]: 4 mask channels, 1 in frame 0 and 0 after, then the latents.
        """
        if self._mode == "full_vae":
            latents = self._start_as_video(image, frames)
        else:
            first = self._vae.encode(image[:, :, None])
            zero = self._zero_latent(image)
            latents = torch.cat([first, zero.expand(-1, -1, frames - 1, -1, -1)], dim=2)
        mask = latents.new_zeros(1, MASK_CHANNELS, *latents.shape[2:])
        mask[:, :, 0] = 1
        return torch.cat([mask, latents], dim=1)

    def render(self, video: torch.Tensor) -> torch.Tensor:
        """``render_latent`` [1, 16, F, h, w] of a render [1, 3, F, H, W] in [-1, 1]."""
        return self._vae.encode(video)

    def reference(self, video: torch.Tensor) -> torch.Tensor:
        """``reference_latent`` [1, 36, R, h, w] of reference frames [1, 3, R, H, W] in [-1, 1]."""
        latents = self._vae.encode(video)
        ones = latents.new_ones(1, MASK_CHANNELS, *latents.shape[2:])
        return torch.cat([latents, ones, latents], dim=1)

    def forget(self) -> None:
        """Drop what is kept."""
        self._zero_latents.clear()

    def _start_as_video(self, image: torch.Tensor, frames: int) -> torch.Tensor:
        zeros = image.new_zeros(1, 3, PIXEL_FRAMES * (frames - 1), *image.shape[2:])
        return self._vae.encode_causal(torch.cat([image[:, :, None], zeros], dim=2))

    def _zero_latent(self, image: torch.Tensor) -> torch.Tensor:
        size = (image.shape[2], image.shape[3])
        if size not in self._zero_latents:
            self._zero_latents[size] = self._vae.encode(torch.zeros_like(image)[:, :, None])
        return self._zero_latents[size]


class ConditionEncoder:
    """Inputs of a clip to its conditions, for one loaded model.

    Args:
        config: of the variant.
        transformer: on whose device the conditions are wanted, and whose widths embeddings have.
        vae: of the base model.
        text_encoder: None: texts must come embedded.
        image_encoder: None: the start frame must come embedded.
        memory: whether the variant attends to references.
    """

    def __init__(
        self,
        config: ModelConfig,
        transformer: WorldStereoTransformer,
        vae: KeyframeVAE,
        text_encoder: TextEncoder | None,
        image_encoder: ImageEncoder | None,
        *,
        memory: bool,
    ) -> None:
        self._transformer = transformer
        self._latents = LatentConditions(vae, config.latent_cond_mode)
        self._text_encoder = text_encoder
        self._image_encoder = image_encoder
        self._memory = memory
        self._embeds_cameras = config.controlnet_cfg.main_camera_embedding

    def encode(self, inputs: ClipInputs, prompts: Prompts) -> Conditions:
        """Conditions of checked inputs.

        Raises:
            ParameterError: an embedding of another shape, or none and no encoder for it.
        """
        start = inputs.start_frame()
        image = self._here(to_unit_range(np.asarray(start)[None]))[:, :, 0]
        guidance = None
        if prompts.guidance_scale is not None:
            negative = self._text(prompts.negative, "negative_prompt_embeds")
            guidance = Guidance(prompts.guidance_scale, negative)
        return Conditions(
            start=self._latents.start(image, inputs.frames),
            render_latent=self._latents.render(self._here(inputs.render_video)),
            render_mask=self._here(inputs.render_mask),
            camera_embedding=self._here(inputs.camera_embedding),
            text=self._text(prompts.text, "prompt_embeds"),
            image=self._image(start, prompts.image_embeds),
            guidance=guidance,
            references=self._references(inputs, image) if self._memory else None,
        )

    def forget(self) -> None:
        """Drop embeddings and latents that are kept for later clips."""
        self._latents.forget()
        if self._text_encoder is not None:
            self._text_encoder.forget()

    def _references(self, inputs: ClipInputs, image: torch.Tensor) -> ReferenceConditions:
        video, rows, rows_ref = inputs.reference_video, inputs.camera_qt, inputs.camera_qt_ref
        if video is None:
            video = image[:, :, None]
            # The start frame was taken by the clip's own first camera.
            if rows_ref is None and rows is not None:
                rows_ref = rows[:, :1]
        if not self._embeds_cameras:
            rows = rows_ref = None
        return ReferenceConditions(
            latent=self._latents.reference(self._here(video)),
            index=reference_index(inputs),
            camera_qt=None if rows is None else self._here(rows),
            camera_qt_ref=None if rows_ref is None else self._here(rows_ref),
        )

    def _text(self, text: str | torch.Tensor, name: str) -> torch.Tensor:
        if not isinstance(text, str):
            check_tensor(name, text, (1, TEXT_TOKENS, self._transformer.config.text_dim))
            return self._here(text)
        if self._text_encoder is None:
            raise ParameterError("there is no text encoder", where=name, got="a text")
        return self._here(self._text_encoder.encode(text))

    def _image(self, image: Image.Image, embeds: torch.Tensor | None) -> torch.Tensor:
        if embeds is not None:
            check_tensor(
                "image_embeds", embeds, (1, IMAGE_TOKENS, self._transformer.config.image_dim)
            )
            return self._here(embeds)
        if self._image_encoder is None:
            raise ParameterError("there is no image encoder", where="image_embeds", got="None")
        return self._here(self._image_encoder.encode(image))

    def _here(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._transformer.patch_embedding.weight.device, torch.float32)
