"""Spans of scenes, trajectories, attempts and stages for OpenTelemetry, where they are asked for.

The orchestrator makes all of them, since every sign of a clip comes by it. All spans of a scene
share a trace id that follows from the scene's id, also those that a later orchestrator makes.
OpenTelemetry is imported only where traces are on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from worldstereo.errors import ParameterError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from configs.telling import TracingSettings

# What a root span's trace id is made from.
_scene: ContextVar[str] = ContextVar("_scene", default="")

# How long a finished span waits for others to be sent with it, ms.
_COLLECT_MS = 1000


class Trace(Protocol):
    """Makes spans; what ``start`` returns is ``end``'s, and the parent of further spans."""

    def start(self, name: str, parent: Any, scene_id: str, **attributes: str | int) -> Any:
        """Begin a span; ``parent`` None begins that of a scene."""
        ...

    def end(self, span: Any, error: str | None = None, **attributes: str) -> None:
        """End a span; ``error`` says why it failed."""
        ...

    def close(self) -> None:
        """Send what was not sent yet; twice is harmless."""
        ...


class NoTrace:
    """Where nobody asks for traces."""

    def start(self, name: str, parent: Any, scene_id: str, **attributes: str | int) -> Any:
        """As ``Trace``."""

    def end(self, span: Any, error: str | None = None, **attributes: str) -> None:
        """As ``Trace``."""

    def close(self) -> None:
        """As ``Trace``."""


def open_trace(settings: TracingSettings | None) -> Trace:
    """Spans as the settings say.

    Raises:
        ParameterError: traces are on and OpenTelemetry is not installed.
    """
    if settings is None:
        return NoTrace()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ParameterError(
            "OpenTelemetry is not installed",
            where="tracing",
            got=str(error),
            fix="type `pip install -e '.[tracing]'`, or leave tracing out of the settings",
        ) from error
    headers: Mapping[str, str] = {
        name: secret.get_secret_value() for name, secret in settings.headers.items()
    }
    exporter = OTLPSpanExporter(
        endpoint=str(settings.endpoint), headers=dict(headers), timeout=settings.timeout_s
    )
    return OtelTrace(exporter)


class OtelTrace:
    """Sends spans to an exporter, in a thread of its own.

    Args:
        exporter: of OpenTelemetry.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        class SceneIds(RandomIdGenerator):
            def generate_trace_id(self) -> int:
                digest = hashlib.sha256(_scene.get().encode()).digest()
                return int.from_bytes(digest[:16], "big")

        self._trace = trace
        # Not the global provider: that one is the host program's.
        self._provider = TracerProvider(
            resource=Resource({"service.name": "worldstereo"}), id_generator=SceneIds()
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=_COLLECT_MS)
        )
        self._tracer = self._provider.get_tracer("worldstereo")
        self._closed = False

    def start(self, name: str, parent: Any, scene_id: str, **attributes: str | int) -> Any:
        """As ``Trace``."""
        from opentelemetry.context import Context

        context = Context()
        if parent is not None:
            context = self._trace.set_span_in_context(parent, context)
        token = _scene.set(scene_id)
        try:
            told = {f"worldstereo.{key}": value for key, value in attributes.items()}
            return self._tracer.start_span(name, context, attributes=told)
        finally:
            _scene.reset(token)

    def end(self, span: Any, error: str | None = None, **attributes: str) -> None:
        """As ``Trace``."""
        for key, value in attributes.items():
            span.set_attribute(f"worldstereo.{key}", value)
        if error is not None:
            span.set_status(self._trace.StatusCode.ERROR, error)
        span.end()

    def close(self) -> None:
        """As ``Trace``."""
        if not self._closed:
            self._closed = True
            self._provider.shutdown()
