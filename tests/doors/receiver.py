"""An OTLP/HTTP receiver on loopback that keeps the spans it is sent."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


class Got(NamedTuple):
    """A span as it arrived: ids as bytes, attributes as plain values."""

    name: str
    trace: bytes
    id: bytes
    parent: bytes
    kind: int
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    start: int
    end: int


class Receiver:
    """The receiver, from `with` on."""

    def __init__(self) -> None:
        self.spans: list[Got] = []
        self.paths: set[str] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"house": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def named(self, operation: str) -> list[Got]:
        """The spans of this operation, in the order of their start."""
        found = [one for one in self.spans if one.attributes["gen_ai.operation.name"] == operation]
        return sorted(found, key=lambda one: one.start)

    def take(self, data: bytes) -> None:
        """Keep what a request holds."""
        for batch in ExportTraceServiceRequest.FromString(data).resource_spans:
            about = _plain(batch.resource.attributes)
            for scope in batch.scope_spans:
                self.spans += [
                    Got(
                        one.name,
                        one.trace_id,
                        one.span_id,
                        one.parent_span_id,
                        one.kind,
                        one.status.code,
                        _plain(one.attributes),
                        about,
                        one.start_time_unix_nano,
                        one.end_time_unix_nano,
                    )
                    for one in scope.spans
                ]


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class _Handler(BaseHTTPRequestHandler):
    house: Receiver

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.house.paths.add(self.path)
        self.house.take(gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data)
        said = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args: object) -> None:
        pass
