"""What the ranks' outcomes mean together, as a table."""

import pytest

from actors.messages import ENGINE_FAILED, ClipReport, WorkerLost
from actors.outcomes import Gone, Outcome, OutOfStep, Unfinished, judge
from worldstereo.errors import GenerationCancelled, GenerationError, ParameterError

REPORT, OTHER_REPORT = ClipReport({"denoise": 1.0}), ClipReport({"denoise": 2.0})
STOPPED = GenerationCancelled("rank 0 ended the clip")
CANCELLED = GenerationCancelled("stopped on request")
GONE, UNFINISHED = Gone("the process died"), Unfinished()
BROKE = GenerationError(ENGINE_FAILED, got="ZeroDivisionError: rank 0")
CLOSED = GenerationError(ENGINE_FAILED, got="RuntimeError: Connection closed by peer")
BAD_CLIP = ParameterError("a clip of another length")


def no_memory(free: int) -> GenerationError:
    return GenerationError("the device ran out of memory", got=f"{free} GiB are free")


def test_all_finished_gives_the_leaders_report() -> None:
    assert judge([REPORT]) is REPORT
    assert judge([REPORT, OTHER_REPORT, OTHER_REPORT]) is REPORT


@pytest.mark.parametrize(
    "outcomes",
    [
        [GONE],
        [REPORT, GONE],
        [CLOSED, GONE],
        [GONE, CLOSED, CLOSED],
        [no_memory(1), GONE],
        [UNFINISHED, GONE],
        [CANCELLED, GONE],
    ],
)
def test_a_rank_that_is_gone_means_another_try_on_another_group(outcomes: list[Outcome]) -> None:
    with pytest.raises(WorkerLost, match="the process died") as lost:
        judge(outcomes)
    assert lost.value.where == f"rank {outcomes.index(GONE)}"


@pytest.mark.parametrize(
    "outcomes",
    [
        [BROKE],
        [BROKE, CLOSED],
        [CANCELLED],
        [CANCELLED, STOPPED],
        [CANCELLED, STOPPED, STOPPED],
        [BROKE, STOPPED],
        [no_memory(1), STOPPED, STOPPED],
        [no_memory(1), no_memory(2)],
        [BAD_CLIP, BAD_CLIP],
    ],
)
def test_what_happens_to_all_is_the_clips_own_matter(outcomes: list[Outcome]) -> None:
    with pytest.raises(type(outcomes[0])) as error:
        judge(outcomes)
    assert error.value is outcomes[0]
    assert not isinstance(error.value, WorkerLost)


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ([no_memory(1), UNFINISHED], 0),
        ([UNFINISHED, no_memory(1)], 1),
        ([CLOSED, no_memory(1)], 1),
        ([REPORT, no_memory(1)], 1),
        ([no_memory(1), BAD_CLIP], 0),
        ([no_memory(1), no_memory(2), UNFINISHED], 0),
        ([STOPPED, STOPPED, no_memory(1)], 2),
        ([CANCELLED, STOPPED, no_memory(1)], 2),
    ],
)
def test_ranks_out_of_step_fail_a_clip_that_one_of_them_cannot_have(
    outcomes: list[Outcome], error: int
) -> None:
    with pytest.raises(OutOfStep) as broken:
        judge(outcomes)
    assert broken.value.error is outcomes[error]


@pytest.mark.parametrize(
    "outcomes",
    [
        [REPORT, UNFINISHED],
        [UNFINISHED, REPORT],
        [BROKE, UNFINISHED],
        [UNFINISHED, BROKE],
        [REPORT, BROKE],
        [REPORT, STOPPED],
        [CANCELLED, REPORT],
        [CANCELLED, UNFINISHED],
        [BROKE, STOPPED, UNFINISHED],
    ],
)
def test_other_ranks_out_of_step_mean_another_try(outcomes: list[Outcome]) -> None:
    with pytest.raises(WorkerLost, match="out of step") as lost:
        judge(outcomes)
    for rank in range(len(outcomes)):
        assert f"rank {rank}: " in str(lost.value)
