"""``WorldStereo``: a loaded variant, from the inputs of one clip to its frames.

Owns the order of the stages (encode, denoise, decode), the published defaults and what a caller
may ask for. The stages themselves are the other modules of this package. One object generates
one clip at a time: the VAE keeps state while it works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image

from worldstereo.config import (
    ComputeOptions,
    ModelConfig,
    Variant,
    is_distilled,
    published_steps,
    uses_memory,
    variant_named,
)
from worldstereo.errors import GenerationError
from worldstereo.models.checkpoint import load_transformer
from worldstereo.models.source import read_model_config, resolve_base, resolve_folder
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.arguments import (
    OutputType,
    Prompts,
    check_output_type,
    check_size,
    denoising_steps,
    one_prompt,
    usable_device,
    usable_precision,
    used_guidance,
)
from worldstereo.sampling.components import (
    load_image_encoder,
    load_scheduler_config,
    load_text_encoder,
    load_vae,
)
from worldstereo.sampling.conditions import ConditionEncoder, Conditions
from worldstereo.sampling.denoise import OnStep, denoise
from worldstereo.sampling.encoders import ImageEncoder, TextEncoder
from worldstereo.sampling.inputs import (
    ClipInputs,
    InputRules,
    check_clip,
    check_inputs,
    check_tensor,
    clip_inputs,
    to_pixels,
)
from worldstereo.sampling.noise import clip_noise, draw_noise
from worldstereo.sampling.schedules import DistilledSchedule, Schedule, UniPCSchedule
from worldstereo.sampling.vae import KeyframeVAE
from worldstereo.sampling.warm_up import warm_up
from worldstereo.types import Clip, Float32, Progress, UInt8


@dataclass(frozen=True, eq=False)
class WorldStereoOutput:
    """What a call returns.

    Attributes:
        frames: "pt": tensor [1, F, 3, H, W] in [0, 1]; "np": array [1, F, H, W, 3] in [0, 1];
            "latent": tensor [1, 16, F, h, w], normalised latents.
    """

    frames: torch.Tensor | Float32


class WorldStereo:
    """One variant, ready to generate clips; made by :meth:`from_pretrained`.

    Args:
        variant: which of the published ones.
        config: its config.json.
        transformer: loaded, in evaluation mode.
        vae: of the base model.
        scheduler_config: settings of the base model's scheduler.
        text_encoder: None: calls must bring ``prompt_embeds``.
        image_encoder: None: calls must bring ``image_embeds``.
        mesh: ranks that the transformer was parallelized for; all of them make the same calls,
            in the same order. None: this one alone.
    """

    def __init__(
        self,
        *,
        variant: Variant,
        config: ModelConfig,
        transformer: WorldStereoTransformer,
        vae: KeyframeVAE,
        scheduler_config: Mapping[str, Any],
        text_encoder: TextEncoder | None = None,
        image_encoder: ImageEncoder | None = None,
        mesh: ParallelMesh | None = None,
    ) -> None:
        self.variant: Variant = variant
        self.mesh = mesh or ParallelMesh.single(transformer.patch_embedding.weight.device)
        self.config = config
        self.transformer = transformer
        self.vae = vae
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self._scheduler_config = scheduler_config
        self._encoder = ConditionEncoder(
            config, transformer, vae, text_encoder, image_encoder, memory=uses_memory(variant)
        )

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        subfolder: str = "worldstereo-memory-dmd",
        *,
        local_files_only: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        encoder_dtype: torch.dtype = torch.float32,
        options: ComputeOptions | None = None,
        mesh: ParallelMesh | None = None,
    ) -> WorldStereo:
        """Load a variant and its base model.

        Args:
            repo_or_folder: a Hugging Face repository in the published layout, a folder of the
                same layout, or ``worldstereo-tiny``, the model that comes with this package.
            subfolder: the variant.
            local_files_only: take nothing from the network.
            device: None: the GPU where there is one, else the CPU.
            dtype: of the transformer; None: bfloat16 on a GPU, float32 on a CPU.
            encoder_dtype: of the text and image encoders.
            options: attention backend, compilation, 8-bit products; None: none of them.
            mesh: the ranks that load and generate together, all of which make this call;
                ``device`` is then the mesh's. None: this one alone.

        Raises:
            ParameterError: ``subfolder`` is no published variant; no such device or precision;
                the model cannot be split over these ranks.
            CheckpointError: a file is missing, unreadable or does not fit.
        """
        variant = variant_named(PurePosixPath(subfolder).name)
        mesh = mesh or ParallelMesh.single(usable_device(device))
        place = mesh.device
        default = torch.bfloat16 if place.type == "cuda" else torch.float32
        precision = usable_precision("dtype", default if dtype is None else dtype)
        encoder_dtype = usable_precision("encoder_dtype", encoder_dtype)
        root = resolve_folder(
            repo_or_folder, subfolder=subfolder, local_files_only=local_files_only
        )
        folder = root / subfolder
        config = read_model_config(folder)
        # What is wrong with the small parts shows before the long load.
        published_steps(variant, config)
        base = resolve_base(config, folder, local_files_only=local_files_only)
        scheduler_config = load_scheduler_config(base)
        return cls(
            variant=variant,
            config=config,
            vae=load_vae(base, mesh),
            scheduler_config=scheduler_config,
            text_encoder=load_text_encoder(base, mesh, encoder_dtype),
            image_encoder=load_image_encoder(base, mesh, encoder_dtype),
            transformer=load_transformer(
                variant,
                base / "transformer",
                folder,
                config,
                mesh=mesh,
                dtype=precision,
                options=options or ComputeOptions(),
            ),
            mesh=mesh,
        )

    @property
    def device(self) -> torch.device:
        """Where the transformer computes."""
        device: torch.device = self.transformer.patch_embedding.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the transformer's products."""
        return self.transformer.compute_dtype

    def __call__(
        self,
        *,
        image: Image.Image,
        prompt: str | None = None,
        render_video: torch.Tensor,
        render_mask: torch.Tensor,
        camera_embedding: torch.Tensor,
        reference_video: torch.Tensor | None = None,
        ref_index: Sequence[int] | torch.Tensor | None = None,
        camera_qt: torch.Tensor | None = None,
        camera_qt_ref: torch.Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        output_type: OutputType = "pt",
        on_step: OnStep | None = None,
    ) -> WorldStereoOutput:
        """Generate one clip from the published inputs.

        Args:
            image: this and the tensors up to ``camera_qt_ref`` as in :class:`ClipInputs`.
            prompt: text, or ``prompt_embeds`` [1, 512, text_dim].
            negative_prompt: likewise; config.json's by default, used with guidance only.
            height: where given, it must be the render's; ``width`` likewise.
            num_inference_steps: None: the published number, 40, or 4 for the distilled variant.
            guidance_scale: None: the model's own, 5 as published. Up to 1, and with the distilled
                variant always, there is one pass a step without guidance.
            generator: for the noise, advanced by one draw; or ``latents`` [1, 16, F, h, w].
            image_embeds: [1, 257, image_dim], instead of encoding the start frame.
            output_type: see :class:`WorldStereoOutput`.
            on_step: called after each step with (steps done, steps in all); may raise to stop.

        Raises:
            ParameterError: an argument does not fit the others or the model.
            PromptError: neither or both of ``prompt`` and ``prompt_embeds``.
            GenerationError: the model's output is not finite.
        """
        references = (reference_video, ref_index, camera_qt, camera_qt_ref)
        inputs = ClipInputs(image, render_video, render_mask, camera_embedding, *references)
        check_inputs(inputs, self._rules)
        check_size(inputs, height, width)
        check_output_type(output_type)
        steps = denoising_steps(num_inference_steps, self.variant, self.config)
        scale = used_guidance(guidance_scale, self.variant, self.config)
        text = one_prompt("prompt", prompt, prompt_embeds)
        default = self.config.negative_prompt
        negative = one_prompt("negative_prompt", negative_prompt, negative_prompt_embeds, default)
        with self._forgetting_failures():
            noise = self.mesh.from_leader(self._noise(inputs, latents, generator))
            conditions = self._encoder.encode(inputs, Prompts(text, negative, image_embeds, scale))
            result = self._denoise(noise, conditions, steps, on_step)
            return WorldStereoOutput(self.frames_of(result, output_type))

    def generate(
        self,
        clip: Clip,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> UInt8:
        """Generate one clip of a scene; its noise follows from the clip's seed and draw.

        Args:
            clip: pictures and cameras at working size, ``config.nframe`` frames.
            num_inference_steps: as in a call.
            guidance_scale: as in a call.
            on_stage: called when a stage starts and after each denoising step; what it raises
                (:class:`GenerationCancelled`, to stop) ends the generation.

        Returns:
            [F, H, W, 3] uint8. The same clip gives the same bytes in any process on the same
            kind of device with the same number of threads.

        Raises:
            ParameterError: the clip or an argument does not fit the model.
            GenerationError: out of memory, or the model's output is not finite.
            LeaderStopped: on another rank than the leader, whose ``on_stage`` raised; of all
                ranks' ``on_stage`` the leader's alone is called.
        """
        tell = on_stage or (lambda progress: None)

        def begin(progress: Progress) -> None:
            self.mesh.agree(lambda: tell(progress))

        check_clip(clip, self.config.nframe)
        inputs = clip_inputs(clip, memory=uses_memory(self.variant))
        check_inputs(inputs, self._rules)
        steps = denoising_steps(num_inference_steps, self.variant, self.config)
        scale = used_guidance(guidance_scale, self.variant, self.config)
        prompts = Prompts(clip.prompt, self.config.negative_prompt, None, scale)
        try:
            with self._forgetting_failures():
                begin(Progress("encode"))
                noise = clip_noise(clip.seed, clip.draw, self._latent_shape(inputs), self.device)
                noise = self.mesh.from_leader(noise)
                conditions = self._encoder.encode(inputs, prompts)
                begin(Progress("denoise", 0, steps))
                latents = self._denoise(
                    noise, conditions, steps, lambda done, of: tell(Progress("denoise", done, of))
                )
                begin(Progress("decode"))
                return to_pixels(self.vae.decode(latents))
        except torch.OutOfMemoryError as error:
            raise GenerationError(
                "the device ran out of memory",
                where=clip.trajectory_id,
                got=str(error).partition("\n")[0],
                fix="give the replica a larger device, or use a smaller working size",
            ) from error

    def warm_up(self) -> list[tuple[int, int]]:
        """Compile what is compiled, so that no clip waits for it; the sizes that were run.

        All ranks must call it together.
        """
        return warm_up(self.transformer, self.config)

    def frames_of(self, latents: torch.Tensor, output_type: OutputType) -> torch.Tensor | Float32:
        """What a call returns for these latents.

        Args:
            latents: [1, 16, F, h, w], normalised.
            output_type: see :class:`WorldStereoOutput`.
        """
        if output_type == "latent":
            return latents
        video = (self.vae.decode(latents) / 2 + 0.5).clamp(0, 1).transpose(1, 2)
        if output_type == "pt":
            return video
        array: Float32 = video.permute(0, 1, 3, 4, 2).cpu().numpy()
        return array

    # What a call asks for

    @property
    def _rules(self) -> InputRules:
        patch = self.transformer.config.patch_size
        controlnet = self.config.controlnet_cfg
        return InputRules(
            ranks=max(self.mesh.layout.ulysses, self.transformer.controlnet.ranks),
            memory=uses_memory(self.variant),
            camera_qt=uses_memory(self.variant) and controlnet.main_camera_embedding,
            size_multiple=self.vae.scale_factor * math.lcm(patch[1], patch[2]),
            mask_downsample=controlnet.mask_downsample,
        )

    # The stages

    @contextmanager
    def _forgetting_failures(self) -> Iterator[None]:
        """Drop what is kept for later clips when the block fails.

        Ranks may have come to different points; what one of them remembers, and does not compute
        again with the others, must be the same on all.
        """
        try:
            yield
        except BaseException:
            self._encoder.forget()
            raise

    def _latent_shape(self, inputs: ClipInputs) -> tuple[int, ...]:
        height, width = (side // self.vae.scale_factor for side in inputs.size)
        return 1, self.vae.latent_channels, inputs.frames, height, width

    def _noise(
        self, inputs: ClipInputs, latents: torch.Tensor | None, generator: torch.Generator | None
    ) -> torch.Tensor:
        shape = self._latent_shape(inputs)
        if latents is None:
            return draw_noise(shape, generator, self.device)
        check_tensor("latents", latents, shape)
        return latents.to(self.device, torch.float32, copy=True)

    def _denoise(
        self, noise: torch.Tensor, conditions: Conditions, steps: int, on_step: OnStep | None
    ) -> torch.Tensor:
        schedule: Schedule = (
            DistilledSchedule.from_config(self.config, steps)
            if is_distilled(self.variant)
            else UniPCSchedule(self._scheduler_config, steps)
        )
        told = on_step or (lambda done, of: None)

        def agree(done: int, of: int) -> None:
            self.mesh.agree(lambda: told(done, of))

        latents = denoise(self.transformer, noise, conditions, schedule, agree, self.mesh)
        if not bool(torch.isfinite(latents).all()):
            raise GenerationError(
                "the generated latents are not finite",
                where=self.variant,
                got="NaN or infinity",
                fix="check the checkpoint, or load the model with dtype=torch.float32",
            )
        return latents
