"""OpenTelemetry: what happens within attempts as spans with the GenAI conventions' names, over OTLP/HTTP, to any viewer of them.

    invoke_agent agentevolve              an attempt: a trace of its own
    ├── search_memory MEMORY              what it was shown of memory, at the start or at a turn
    ├── chat MODEL                        a request to the model, each try by itself
    └── execute_tool NAME                 the action, and what the world did
    create_memory MEMORY                  what was remembered

The command line does this when OpenTelemetry's own variables ask for it (OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT, and
not OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER=none); a program calls `start`. Nothing of OpenTelemetry is imported before. What
was said, done and recalled is left out unless OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true; then without secrets.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentevolve.doors.conventions import DESCRIBED, NAME, Facts, spent, value, version
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Usage
from agentevolve.run import spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_stop: Callable[[], None] = lambda: None  # noqa: E731


def asked() -> bool:
    """Whether the environment asks for traces."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    return any(os.environ.get(name) for name in ENDPOINTS) and not off


def start_when_asked() -> None:
    """Start with the first span, if the environment asks for it; where that cannot be, say so once and go on without."""
    lock, begun = threading.Lock(), False

    def first(kind: spans.Kind, facts: Facts) -> spans.Span:
        nonlocal begun
        with lock:  # the others wait, so that none of theirs is lost
            if not begun:
                begun = True
                try:
                    start()
                except Exception as error:  # no package, or a setting of OpenTelemetry's that is none: no attempt ends for it
                    spans.listen(None)
                    print(f"no traces: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return spans.span(kind, **facts)

    if asked():
        spans.listen(first, spans.Ear(__name__, {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}))


def start(processor: SpanProcessor | None = None, *, content: bool | None = None) -> None:
    """Send spans from now on, through `processor` (else in batches, to where OpenTelemetry's variables say), until `stop`.

    `content` says whether what was said, done and recalled goes with them (else the environment does). Raises AgentevolveError
    when the extra "traces" is not installed.
    """
    global _stop
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if processor is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            logging.getLogger(OTLPSpanExporter.__module__).addFilter(_first_complaint())
            processor = BatchSpanProcessor(OTLPSpanExporter())
    except ImportError:
        raise AgentevolveError('traces need the extra "traces": pip install "agentevolve[traces]"') from None
    service = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": NAME}
    provider = TracerProvider(resource=Resource.create(service))
    provider.add_span_processor(processor)
    tracer = provider.get_tracer(NAME, version())
    whole = os.environ.get(CONTENT, "").lower() in ("true", "1") if content is None else content
    before, _stop = _stop, provider.shutdown
    spans.listen(lambda kind, facts: _Span(tracer, kind, facts, whole))
    before()


def _first_complaint() -> Callable[[logging.LogRecord], bool]:
    """Lets one record through: a receiver that is not there is complained of at each of its batches."""
    said: list[str] = []

    def first(record: logging.LogRecord) -> bool:
        said.append(record.msg)
        return len(said) == 1

    return first


def stop() -> None:
    """Send what is left, and no more."""
    global _stop
    spans.listen(None)
    _stop()
    _stop = lambda: None  # noqa: E731


class _Span:
    """A span of OpenTelemetry's: begun when entered, described when left, when everything about it is known."""

    __slots__ = ("_content", "_facts", "_kind", "_span", "_token", "_tracer")

    def __init__(self, tracer: Any, kind: spans.Kind, facts: Facts, content: bool) -> None:
        self._tracer, self._kind, self._facts, self._content = tracer, kind, facts, content

    def __enter__(self) -> spans.Span:
        from opentelemetry import context, trace

        kind = trace.SpanKind.CLIENT if self._kind == "chat" else trace.SpanKind.INTERNAL
        self._span = self._tracer.start_span(self._kind, kind=kind, attributes={"gen_ai.operation.name": self._kind})
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from opentelemetry import context

        if self._span.is_recording():
            try:
                self._describe()
            except Exception as failure:  # an answer of a form that nobody thought of: no attempt ends for it
                self._span.set_attribute(f"{NAME}.undescribed", f"{type(failure).__name__}: {failure}"[:200])
            if error is not None:
                self._fail(error)
        context.detach(self._token)
        self._span.end()

    def set(self, **facts: Any) -> None:
        """Add what is known by now."""
        self._facts |= facts

    def _describe(self) -> None:
        name, attributes = DESCRIBED[self._kind](self._facts, self._content)
        self._span.update_name(value(f"{self._kind} {name}"))
        self._span.set_attributes({key: value(one) for key, one in attributes.items() if one is not None})

    def _fail(self, error: BaseException) -> None:
        from opentelemetry.trace import Status, StatusCode

        why = getattr(error, "why", error)  # a try that came to nothing says the backend's status
        status = getattr(why, "status", 0)
        self._span.set_attribute("error.type", str(status) if status else type(error).__name__)
        self._span.set_attributes(spent(getattr(error, "usage", Usage())))
        self._span.set_status(Status(StatusCode.ERROR, value(str(error))[:500]))
