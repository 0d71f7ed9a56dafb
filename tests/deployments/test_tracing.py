"""Spans of a scene, and that nothing of OpenTelemetry is imported where nobody asks for them."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from pydantic import SecretStr

from actors.messages import Committed, Failed, Stopped, WorkerLost
from configs.telling import TracingSettings
from deployments.telemetry import SceneWatch, Telemetry
from deployments.tracing import OtelTrace, open_trace
from tests.deployments.otlp import spans_in
from tests.receiver import receiving
from worldstereo.errors import GenerationError


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: object) -> SpanExportResult:
        assert isinstance(spans, tuple | list)
        self.spans += spans
        return SpanExportResult.SUCCESS


def lives(watch: SceneWatch) -> None:
    """A clip that is lost once, then committed; another that fails."""
    with watch.running():
        with watch.clip("v/a") as clip:
            clip.started("first", 1)
            clip.advanced("retrieve")
            clip.advanced("denoise")
            clip.advanced("denoise")
            lost = Failed(WorkerLost("a worker died"), retry=True)
            clip.attempt_ended(lost)
            clip.retried(lost.error)
            clip.started("second", 2)
            clip.advanced("denoise")
            clip.attempt_ended(Committed(first=True, stage_seconds={"denoise": 1.0}))
            clip.ended("committed")
        with watch.clip("v/b") as clip:
            clip.started("third", 1)
            clip.attempt_ended(Failed(GenerationError("broke"), retry=False))
            clip.ended("failed")
        with watch.clip("v/c") as clip:
            clip.started("fourth", 1)
            clip.advanced("encode")
            clip.attempt_ended(Stopped())
            clip.ended("cancelled")


def test_spans_stand_in_each_other_and_say_what_failed() -> None:
    kept = Kept()
    trace = OtelTrace(kept)
    lives(SceneWatch(Telemetry(trace=trace), "one", "variant"))
    trace.close()
    trace.close()
    named = {span.context.span_id: span for span in kept.spans if span.context}

    def path(span: ReadableSpan) -> str:
        own = span.attributes.get("worldstereo.attempt") if span.attributes else None
        label = f"{span.name}:{own}" if own else span.name
        return label if span.parent is None else f"{path(named[span.parent.span_id])} {label}"

    assert sorted(map(path, kept.spans)) == sorted(
        [
            "scene",
            "scene trajectory",
            "scene trajectory attempt:first",
            "scene trajectory attempt:first retrieve",
            "scene trajectory attempt:first denoise",
            "scene trajectory attempt:second",
            "scene trajectory attempt:second denoise",
            "scene trajectory",
            "scene trajectory attempt:third",
            "scene trajectory",
            "scene trajectory attempt:fourth",
            "scene trajectory attempt:fourth encode",
        ]
    )
    failed = {path(span): span.status.description for span in kept.spans if not span.status.is_ok}
    assert failed["scene trajectory attempt:first"] == "a worker died"
    assert failed["scene trajectory attempt:third"] == "broke"
    assert "scene trajectory attempt:fourth" not in failed


def test_a_scene_is_one_trace_also_for_the_next_orchestrator() -> None:
    ids = []
    for scene in ("one", "one", "two"):
        kept = Kept()
        trace = OtelTrace(kept)
        lives(SceneWatch(Telemetry(trace=trace), scene, "variant"))
        trace.close()
        ids.append({span.context.trace_id for span in kept.spans if span.context})
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 1


def test_a_collector_receives_them_over_http() -> None:
    with receiving(lambda number: 200) as collector:
        settings = TracingSettings.model_validate(
            {"endpoint": f"{collector.url}/v1/traces", "headers": {"x-token": SecretStr("t")}}
        )
        trace = open_trace(settings)
        lives(SceneWatch(Telemetry(trace=trace), "one", "variant"))
        trace.close()
        spans = [span for message in collector.received for span in spans_in(message.body)]
        assert len(spans) == 12
        assert {message.path for message in collector.received} == {"/v1/traces"}
        headers = {k.lower(): v for k, v in collector.received[0].headers.items()}
        assert headers["x-token"] == "t"


def test_an_attempt_that_nobody_waits_for_is_closed() -> None:
    kept = Kept()
    trace = OtelTrace(kept)
    watch = SceneWatch(Telemetry(trace=trace), "one", "variant")

    def stopped() -> None:
        with watch.running(), watch.clip("v/a") as clip:
            clip.started("first", 1)
            clip.advanced("denoise")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    trace.close()
    assert [span.name for span in kept.spans] == ["denoise", "attempt", "trajectory", "scene"]


def test_nothing_is_imported_where_traces_are_off() -> None:
    code = (
        "import sys; import deployments.telling as t; t.Telling().telemetry();"
        # The API is there: Ray has it.
        "off = ('opentelemetry.sdk', 'opentelemetry.exporter');"
        "found = [name for name in sys.modules if name.startswith(off)];"
        "sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
