"""Every metric and every span of the mesh, in one table each.

A metric exists only if it is here. Names end in their unit; all are Prometheus's.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum

from opentelemetry import propagate, trace
from prometheus_client import Counter, Gauge, Histogram, start_http_server

_LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)

STREAMS = Gauge("voxmesh_streams", "Streams being served now.", ["stage"])
STREAMS_REFUSED = Counter("voxmesh_streams_refused", "Streams refused.", ["stage", "reason"])
SPEAKING_STREAMS = Gauge(
    "voxmesh_speaking_streams", "Live streams that asked for a model run lately.", ["stage"]
)
CAPACITY_STREAMS = Gauge(
    "voxmesh_capacity_streams",
    "Live streams that could speak at once, judging by what model runs cost now.",
    ["stage"],
)
AUDIO_SECONDS = Counter("voxmesh_audio_seconds", "Audio taken in, in seconds.", ["stage"])
STEP_SECONDS = Histogram(
    "voxmesh_step_seconds", "Time of one batched model run.", ["stage"], buckets=_LATENCY_S
)
STEP_WAIT_SECONDS = Histogram(
    "voxmesh_step_wait_seconds",
    "Time from a step being ready to its model run.",
    ["stage"],
    buckets=_LATENCY_S,
)
BATCH_STREAMS = Histogram(
    "voxmesh_batch_streams", "Streams in one batched model run.", ["stage"], buckets=_BATCH
)
MODEL_SECONDS = Counter(
    "voxmesh_model_seconds",
    "Time spent in model runs; over voxmesh_audio_seconds it is the real-time factor.",
    ["stage"],
)
UTILISATION_RATIO = Gauge(
    "voxmesh_utilisation_ratio", "Share of the workers that is busy, 0 to 1.", ["stage"]
)
CADENCE_SECONDS = Gauge(
    "voxmesh_cadence_seconds", "Audio between two decodings of a live stream.", ["stage"]
)
STREAM_LAG_SECONDS = Histogram(
    "voxmesh_stream_lag_seconds",
    "Audio that a live stream had sent and not seen decoded, each time before a decoding came.",
    ["stage"],
    buckets=_LATENCY_S,
)
MODEL_ERRORS = Counter("voxmesh_model_errors", "Model runs that failed.", ["stage"])
WORDS_COMMITTED = Counter("voxmesh_words_committed", "Words committed.")
GUARDS_FIRED = Counter("voxmesh_guards_fired", "Decodings that a guard did not believe.", ["guard"])
SESSIONS = Gauge("voxmesh_sessions", "Sessions open now.", ["protocol"])
SESSIONS_ENDED = Counter("voxmesh_sessions_ended", "Sessions ended.", ["protocol", "outcome"])
SESSIONS_RESUMED = Counter(
    "voxmesh_sessions_resumed", "Connections that went on with a session.", ["protocol"]
)
STAGE_RESTARTS = Counter(
    "voxmesh_stage_restarts", "Stage streams replaced within a session.", ["stage", "reason"]
)
COMMIT_LAG_SECONDS = Histogram(
    "voxmesh_commit_lag_seconds",
    "Audio received after the end of a word when the word was committed.",
    buckets=_LATENCY_S,
)
TRANSLATION_LAG_SECONDS = Histogram(
    "voxmesh_translation_lag_seconds",
    "Newest audio minus the end of the words of which a translation is certain.",
    buckets=(0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 40),
)
MESSAGES_SENT = Counter("voxmesh_messages_sent", "Messages sent to clients.", ["protocol"])
BYTES_SENT = Counter("voxmesh_sent_bytes", "Bytes sent to clients.", ["protocol"])
TASKS = Gauge("voxmesh_tasks", "Tasks of the event loop that have not ended.")


class Span(StrEnum):
    """Every span."""

    SESSION = "gateway.session"
    STAGE = "gateway.stage"
    VAD_STREAM = "vad.detect"
    ASR_STREAM = "asr.transcribe"
    DIARIZER_STREAM = "diarizer.diarize"
    TRANSLATOR_STREAM = "translator.translate"


def start_metrics(host: str, port: int) -> None:
    """Serve the metrics of this process, unless ``port`` is 0."""
    if port:
        start_http_server(port, host)


def count_tasks() -> None:
    """Let ``voxmesh_tasks`` tell the tasks of the running event loop, whenever it is read."""
    loop = asyncio.get_running_loop()
    TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))


def start_tracing(service: str, otlp_endpoint: str) -> None:
    """Send spans to a collector in the background, unless the endpoint is empty.

    Raises:
        ImportError: The ``tracing`` extra is not installed.

    """
    if not otlp_endpoint:
        return
    # The SDK is an extra: whoever sends no spans need not install it.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint)))
    trace.set_tracer_provider(provider)


@contextmanager
def span(
    name: Span, session_id: str, *, parent: Mapping[str, str] | None = None
) -> Iterator[trace.Span]:
    """Open a span for the length of the ``with`` block.

    Args:
        name: Which one.
        session_id: The session it belongs to.
        parent: Metadata of the call that this one serves; unset: the span around.

    """
    context = propagate.extract(parent) if parent is not None else None
    with trace.get_tracer("voxmesh").start_as_current_span(
        name, context=context, attributes={"voxmesh.session_id": session_id}
    ) as current:
        yield current


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata that carries the current span to the service that is called."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())
