"""Videos in and out: MP4 files through PyAV; H.264 yuv420p written at 16 frames a second.

Owns decoding with a checked frame count, its limits, and encoding. Only the MP4 demuxer is used,
on an opened file, so that no input can make FFmpeg open another file or an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from worldstereo.errors import MediaError, ParameterError
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.types import UInt8

FPS = 16
# One thread and no instruction set above SSE2: x264's output depends on the number of threads,
# and its AVX code reads memory that nothing has written, so that files differ from run to run.
_X264_OPTIONS = {"preset": "medium", "threads": "1", "x264-params": "asm=SSE2"}
_DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, IndexError)


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, found by decoding all of it: frames, height and width in pixels."""

    frames: int
    height: int
    width: int


@contextmanager
def _opened(path: Path, name: str, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    with path.open("rb") as file:
        try:
            container = av.open(file, mode="r", format="mp4")
        except _DECODE_ERRORS as problem:
            raise MediaError(
                "no readable video",
                where=name,
                got=_what_it_is(path),
                allowed="a complete MP4 file, H.264",
            ) from problem
        with container:
            # A stream of a codec that this FFmpeg does not know has no codec context.
            streams = [s for s in container.streams.video if getattr(s, "codec_context", None)]
            if not streams:
                raise MediaError(
                    "the file holds no video",
                    where=name,
                    got="no video stream of a known codec, or a cut file",
                    allowed="a complete MP4 file, H.264",
                )
            stream = streams[0]
            _check_header(stream, name, limits)
            yield container, stream


def _what_it_is(path: Path) -> str:
    size = path.stat().st_size
    return "an empty file" if size == 0 else f"{size} bytes that are no MP4 file, or a cut one"


def _check_header(stream: VideoStream, name: str, limits: Limits) -> None:
    width, height = stream.width, stream.height
    if width * height > limits.max_frame_pixels or min(width, height) < limits.min_side:
        raise MediaError(
            "the video's size is out of range",
            where=name,
            got=f"{width}x{height} pixels",
            allowed=f"sides of at least {limits.min_side}, "
            f"up to {limits.max_frame_pixels} pixels a frame",
        )
    seconds = 0.0
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    if stream.frames > limits.max_frames or seconds > limits.max_seconds:
        raise MediaError(
            "the video is too long",
            where=name,
            got=f"{stream.frames} frames, {seconds:.1f} s",
            allowed=f"up to {limits.max_frames} frames and {limits.max_seconds:g} s",
        )


def decoded(path: Path, name: str, limits: Limits = DEFAULT_LIMITS) -> Iterator[VideoFrame]:
    """All frames of a video, one at a time, still in the codec's pixel format.

    Args:
        path: the file.
        name: how errors call it.
        limits: bounds, checked before decoding.

    Raises:
        MediaError: no MP4, broken or cut (frames missing that the header promises), of changing
            size, or over the limits.
    """
    with _opened(path, name, limits) as (container, stream):
        # Twice the limit, since codecs count whole blocks: a frame that the header hid is refused
        # before memory is taken for it.
        most = str(2 * limits.max_frame_pixels)
        stream.codec_context.options = {"err_detect": "explode", "max_pixels": most}
        count = 0
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise _broken(name, f"frame {count} is damaged")
                if (frame.height, frame.width) != (stream.height, stream.width):
                    raise _broken(name, f"frame {count} is {frame.width}x{frame.height} pixels")
                if count == limits.max_frames:
                    raise _broken(name, f"more than {limits.max_frames} frames")
                yield frame
                count += 1
        except _DECODE_ERRORS as problem:
            if isinstance(problem, MediaError):
                raise
            # Not the whole message of FFmpeg, which ends with the file's place on this machine.
            why = getattr(problem, "strerror", None) or type(problem).__name__
            raise _broken(name, f"an error after {count} frames: {why}") from problem
        if count < max(stream.frames, 1):
            raise _broken(name, f"{count} of {stream.frames} frames")


def _broken(name: str, got: str) -> MediaError:
    return MediaError(
        "the video cannot be decoded to its end",
        where=name,
        got=got,
        allowed="a complete H.264 video with frames of one size",
        fix="write the file again",
    )


def video_info(path: Path, name: str | None = None, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Decode a whole video and count its frames, without keeping them; errors of ``decoded``."""
    count = height = width = 0
    for frame in decoded(path, str(path) if name is None else name, limits):
        count, height, width = count + 1, frame.height, frame.width
    return VideoInfo(count, height, width)


def read_video(
    path: Path,
    name: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    indices: Sequence[int] | None = None,
) -> UInt8:
    """Decode a video, or some of its frames.

    Args:
        path: the file.
        name: how errors call it; default: its path.
        limits: bounds, checked before decoding.
        indices: frames to keep, ascending; None keeps all.

    Returns:
        [N, height, width, 3] uint8 RGB.

    Raises:
        MediaError: as ``decoded``; also when a frame of ``indices`` is not there.
    """
    name = str(path) if name is None else name
    wanted = None if indices is None else [int(index) for index in indices]
    kept: dict[int, UInt8] = {}
    count = 0
    for index, frame in enumerate(decoded(path, name, limits)):
        if wanted is None or index in wanted:
            kept[index] = rgb(frame)
        count = index + 1
    order = range(count) if wanted is None else wanted
    if any(index not in kept for index in order):
        raise MediaError(
            "the video is too short",
            where=name,
            got=f"{count} frames",
            allowed=f"at least {max(order) + 1} frames",
        )
    return np.stack([kept[index] for index in order])


def rgb(frame: VideoFrame) -> UInt8:
    """A decoded frame as [height, width, 3] uint8 RGB."""
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def write_video(path: Path, frames: UInt8, fps: int = FPS, crf: int = 18) -> None:
    """Encode frames as an MP4 that browsers play: H.264 yuv420p.

    The same frames give the same bytes.

    Args:
        path: the file to write.
        frames: [N, height, width, 3] uint8 RGB, N >= 1, even sides (yuv420p).
        fps: frames a second.
        crf: x264's constant rate factor; lower is better and larger, 0 to 51.

    Raises:
        ParameterError: no frames, odd sides, or a crf out of range.
    """
    if frames.ndim != 4 or frames.shape[0] < 1 or frames.shape[3] != 3:
        raise ParameterError(
            "no frames to write",
            where="frames",
            got=f"shape {list(frames.shape)}",
            allowed="[N, height, width, 3] with N >= 1",
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ParameterError(
            "H.264 with yuv420p needs even sides",
            where="frames",
            got=f"{width}x{height} pixels",
            allowed="an even width and height",
        )
    if not 0 <= crf <= 51:
        raise ParameterError(
            "the rate factor is out of range", where="crf", got=str(crf), allowed="0 to 51"
        )
    with av.open(path, mode="w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = {**_X264_OPTIONS, "crf": str(crf)}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
