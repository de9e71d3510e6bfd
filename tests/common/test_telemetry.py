import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from services.common import telemetry
from services.common.telemetry import Span, start_metrics, trace_metadata

METRICS = {
    name: metric
    for name, metric in vars(telemetry).items()
    if isinstance(metric, MetricWrapperBase)
}
UNITS = ("seconds", "bytes", "ratio")
COUNTED = (
    *("streams", "sessions", "words", "guards", "messages", "errors", "restarts", "tasks"),
    *("streams_refused", "model_errors", "words_committed", "guards_fired", "sessions_ended"),
    "sessions_resumed",
    *("stage_restarts", "messages_sent", "batch_streams", "speaking_streams", "capacity_streams"),
)


def described(metric: MetricWrapperBase) -> tuple[str, str]:
    [family] = metric.collect()
    return family.name, family.documentation


@pytest.mark.parametrize("name", METRICS)
def test_a_metrics_name_ends_in_its_unit_or_in_what_it_counts(name: str) -> None:
    exported, text = described(METRICS[name])
    assert re.fullmatch(r"voxmesh(_[a-z]+)+", exported)
    assert exported.upper() in {f"VOXMESH_{name}", "VOXMESH_SENT_BYTES"}
    ending = exported.removeprefix("voxmesh_")
    assert ending.endswith(UNITS) or ending in COUNTED
    assert text.endswith("."), "a sentence"
    if re.search(r"\b[Tt]ime\b|\bAudio\b", text):
        assert exported.endswith("_seconds")
    if isinstance(METRICS[name], Histogram):
        assert exported.endswith(("_seconds", "_streams"))


def test_no_metric_has_a_label_with_a_session_in_it() -> None:
    labels = {label for metric in METRICS.values() for label in metric._labelnames}
    assert labels <= {"stage", "guard", "protocol", "outcome", "reason"}


def test_metrics_are_served_on_their_port(unused_tcp_port: int) -> None:
    start_metrics("127.0.0.1", 0)  # none asked for
    telemetry.WORDS_COMMITTED.inc(3)
    start_metrics("127.0.0.1", unused_tcp_port)
    with urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics", timeout=5) as answer:
        assert "voxmesh_words_committed_total" in answer.read().decode()


def test_without_a_collector_there_is_nothing_to_pass_on() -> None:
    with telemetry.span(Span.SESSION, "s1"):
        assert trace_metadata() == ()


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """An OpenTelemetry collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.services: dict[str, str] = {}

    async def Export(  # noqa: N802 -- gRPC's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, _: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            [service] = [
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            ]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[span.name] = span
                    self.services[span.name] = service
        return trace_service_pb2.ExportTraceServiceResponse()


CALLER = """
import json, subprocess, sys
from services.common.telemetry import Span, span, start_tracing, trace_metadata
start_tracing("caller", sys.argv[1])
with span(Span.SESSION, "s1"), span(Span.STAGE, "s1"):
    carried = json.dumps(dict(trace_metadata()))
    subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1], carried], check=True)
"""

CALLEE = """
import json, sys
from services.common.telemetry import Span, span, start_tracing
start_tracing("callee", sys.argv[1])
with span(Span.VAD_STREAM, "s1", parent=json.loads(sys.argv[2])):
    pass
"""


async def test_a_trace_crosses_processes(unused_tcp_port: int) -> None:
    receiver = Receiver()
    collector = grpc.aio.server()
    add = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(receiver, collector)  # type: ignore[no-untyped-call]  # generated without types
    collector.add_insecure_port(f"127.0.0.1:{unused_tcp_port}")
    await collector.start()
    command = [sys.executable, "-c", CALLER, f"http://127.0.0.1:{unused_tcp_port}", CALLEE]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr.decode()
    await collector.stop(grace=1)

    session, stage, vad = (
        receiver.spans[name] for name in (Span.SESSION, Span.STAGE, Span.VAD_STREAM)
    )
    assert receiver.services == {
        Span.SESSION: "caller",
        Span.STAGE: "caller",
        Span.VAD_STREAM: "callee",
    }
    assert session.trace_id == stage.trace_id == vad.trace_id
    assert session.parent_span_id == b""
    assert stage.parent_span_id == session.span_id
    assert vad.parent_span_id == stage.span_id
    [attribute] = vad.attributes
    assert (attribute.key, attribute.value.string_value) == ("voxmesh.session_id", "s1")
