"""How frames are split over ranks."""

from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import laws
from worldstereo.parallel.frames import split_frames


@laws
@given(st.integers(0, 200), st.integers(1, 20))
def test_shares_are_even_and_complete(frames, parts):
    shares = split_frames(frames, parts)
    assert len(shares) == parts
    assert sum(shares) == frames
    assert shares == sorted(shares)
    assert shares[-1] - shares[0] <= 1
