"""The form of ``POST /v1/videos``, read as the submission of a scene with one trajectory.

Owns OpenAI's names and what of theirs this model can do. The image itself is checked where every
scene's is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from worldstereo_client.errors import ParameterError as UnreadableTrajectory
from worldstereo_client.schemas import DEFAULT_VARIANT, BuildRequest, SceneRequest, TrajectorySpec
from worldstereo_client.trajectories import orbit, read_trajectory

from configs.settings import UploadLimits
from deployments.errors import ValidationError
from deployments.multipart import ReceivedFile, Upload, UploadReceiver
from deployments.submission import build_parameters
from worldstereo.builder.specs import refused
from worldstereo.config import ModelConfig, Variant
from worldstereo.errors import ParameterError
from worldstereo.formats.images import image_size
from worldstereo.formats.scene_folder import working_size
from worldstereo.formats.video import FPS

# Where the caller names none: a gentle one, which every image bears.
DEFAULT_TRAJECTORY = orbit(azimuth=15)

_IMAGE = "input_reference"


class VideoForm(UploadReceiver):
    """Receives OpenAI's fields, and ``trajectory`` and ``seed`` beside them.

    Args:
        folder, content_type, limits: as ``UploadReceiver``.
        configs: config.json of each variant that is served.
    """

    file_parts = (_IMAGE,)
    text_parts = ("prompt", "model", "seconds", "size", "trajectory", "seed")

    def __init__(
        self,
        folder: Path,
        content_type: str,
        limits: UploadLimits,
        *,
        configs: Mapping[Variant, ModelConfig],
    ) -> None:
        super().__init__(folder, content_type, limits)
        self._configs = {str(variant): config for variant, config in configs.items()}

    def finish(self) -> Upload:
        """What came, as the upload of an image to build from.

        Raises:
            UploadError: the body ended too early.
            InputError: a field is missing, malformed, or asks for what the model cannot do.
        """
        self.check_end()
        image = self.received(_IMAGE)
        if image is None or not image.name:
            raise ValidationError(
                "a video starts from an image",
                where=_IMAGE,
                got="no file",
                allowed="a PNG, JPEG or WebP image as a file of multipart/form-data",
                fix="the models here turn an image into a video: send the image with the prompt",
            )
        self._check_form_of_video(image)
        prompt = self.text("prompt")
        if not (prompt and prompt.strip()):
            raise ValidationError("what the image shows is not said", where="prompt", got="nothing")
        spec = _trajectory(self.text("trajectory"))
        fields: dict[str, Any] = {"variant": self.text("model"), "seed": self.text("seed")}
        try:
            request = SceneRequest(
                build=BuildRequest(prompt=prompt, trajectories=(spec,)),
                outputs=(),
                **{name: value for name, value in fields.items() if value},
            )
        except pydantic.ValidationError as error:
            raise refused(error, "") from error
        try:
            build_parameters(request, self._configs[request.variant].nframe)
        except ParameterError as error:
            raise _by_openais_names(error) from error
        parameters = request.model_dump_json()
        return Upload(scene=None, image=image, depth=None, depth_unit=None, parameters=parameters)

    def _check_form_of_video(self, image: ReceivedFile) -> None:
        """A clip's length and size are the model's: another one cannot be had by asking."""
        model = self.text("model") or DEFAULT_VARIANT
        if model not in self._configs:
            raise ParameterError(
                "this server does not offer the model",
                where="model",
                got=repr(model[:100]),
                allowed=", ".join(self._configs),
            )
        config = self._configs[model]
        allowed = {
            "seconds": seconds_of(config),
            "size": size_of(image_size(image.path, image.name), config),
        }
        for name, value in allowed.items():
            asked = self.text(name)
            if asked and asked != value:
                raise ParameterError(
                    f"the model gives videos of this image another {name}",
                    where=name,
                    got=repr(asked[:100]),
                    allowed=value,
                    fix=f"leave {name} out",
                )


def seconds_of(config: ModelConfig) -> str:
    """How long a model's clips last, as OpenAI writes it."""
    return f"{config.nframe / FPS:g}"


def size_of(image: tuple[int, int], config: ModelConfig) -> str:
    """The size of a clip of an image (height, width), as OpenAI writes it: width x height."""
    height, width = working_size(*image, config.scale_map)
    return f"{width}x{height}"


def _by_openais_names(error: ParameterError) -> ParameterError:
    """An error about how the scene is built, about the field of the form that said so."""
    about = "trajectory" if "trajectories" in (error.where or "") else "prompt"
    return ParameterError(**{**error.fields, "where": about})


def _trajectory(text: str | None) -> TrajectorySpec:
    """One camera path, as on the command line or as JSON."""
    if not text:
        return DEFAULT_TRAJECTORY
    try:
        if text.lstrip().startswith("{"):
            return TrajectorySpec.model_validate_json(text)
        return read_trajectory(text)
    except (UnreadableTrajectory, pydantic.ValidationError) as error:
        raise ParameterError(
            "not a trajectory",
            where="trajectory",
            got=repr(text[:200]),
            allowed="preset:field=value,field=value such as orbit:azimuth=20, or a spec as JSON",
        ) from error
