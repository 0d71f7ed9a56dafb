"""Videos: frame counts, colours within the codec's loss, and the same bytes every time."""

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import picture
from worldstereo.errors import MediaError, ParameterError
from worldstereo.formats.limits import Limits
from worldstereo.formats.video import VideoInfo, read_video, video_info, write_video
from worldstereo.types import UInt8


def moving(count: int, size: tuple[int, int] = (32, 48)) -> UInt8:
    start = picture(0, size)
    return np.stack([np.roll(start, index, axis=1) for index in range(count)])


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 30),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    seed=st.integers(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, count: int, height: int, width: int, seed: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "video.mp4"
    grey = picture(abs(seed), (2 * height, 2 * width))[..., :1]
    frames = np.stack([grey.repeat(3, axis=2)] * count)
    write_video(file, frames)
    assert video_info(file) == VideoInfo(count, 2 * height, 2 * width)
    assert np.abs(read_video(file).astype(int) - frames).mean() < 8


def test_it_is_h264_that_browsers_play(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", moving(21))
    with av.open(str(tmp_path / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(16)
        assert stream.frames == 21
    data = (tmp_path / "video.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "players start before the end has come"


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = moving(21, (128, 192))
    digests = set()
    for _ in range(10):
        write_video(tmp_path / "video.mp4", frames)
        digests.add(hashlib.sha256((tmp_path / "video.mp4").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_chosen_frames_are_those_of_the_whole(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", moving(25))
    chosen = read_video(tmp_path / "video.mp4", indices=[0, 4, 24])
    assert np.array_equal(chosen, read_video(tmp_path / "video.mp4")[[0, 4, 24]])
    with pytest.raises(MediaError, match=r"25 frames.*at least 26 frames"):
        read_video(tmp_path / "video.mp4", indices=[0, 25])


def test_masks_survive_the_codec(tmp_path: Path) -> None:
    mask = np.zeros((5, 32, 48, 3), np.uint8)
    mask[:, 8:20, 10:30] = 255
    write_video(tmp_path / "mask.mp4", mask)
    assert np.array_equal(read_video(tmp_path / "mask.mp4") > 127, mask > 127)


def test_odd_sides_and_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="48x31"):
        write_video(tmp_path / "video.mp4", np.zeros((2, 31, 48, 3), np.uint8))
    with pytest.raises(ParameterError, match="no frames"):
        write_video(tmp_path / "video.mp4", np.zeros((0, 32, 48, 3), np.uint8))
    with pytest.raises(ParameterError, match="52"):
        write_video(tmp_path / "video.mp4", moving(2), crf=52)
    assert not (tmp_path / "video.mp4").exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_frames=20), "21 frames"),
        (Limits(max_seconds=1.0), "1.3 s"),
        (Limits(max_frame_pixels=1000), "48x32"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, message: str) -> None:
    write_video(tmp_path / "video.mp4", moving(21))
    with pytest.raises(MediaError, match=message):
        video_info(tmp_path / "video.mp4", limits=limits)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", moving(2))
    for text in (
        f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/video.mp4\n",
        "ffconcat version 1.0\nfile video.mp4\n",
    ):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(MediaError, match="no readable video"):
            video_info(tmp_path / "list.mp4")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_errors_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    if not (folder / "whole.mp4").exists():
        write_video(folder / "whole.mp4", moving(6))
    content = bytearray((folder / "whole.mp4").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged.mp4").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    # Nothing but a MediaError may come out: an error of FFmpeg or PyAV fails the test.
    message = ""
    try:
        assert video_info(folder / "damaged.mp4", "damaged.mp4").frames >= 1
    except MediaError as error:
        message = str(error)
    assert str(folder) not in message
