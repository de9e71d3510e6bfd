"""Channels to other services: what every one of them is opened with."""

import json

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2

from services.common.tls import stays_on_machine

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Ten seconds of audio are 320 kB; a checkpoint is a few kB."""

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            # Before the first reply only: gRPC never replays a stream that has answered.
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished without a word is noticed within 15 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A killed replica is back within a second or two; do not sit out gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name this is how long one attempt may take; a busy machine needs a moment.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """A channel to a service.

    Args:
        target: ``unix:/path``, ``host:port`` or ``dns:///host:port``.
        credentials: For TLS, unless the target is a Unix socket; None: plaintext.

    """
    if credentials is None or stays_on_machine(target):
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


async def serves(channel: grpc.aio.Channel, service_name: str, *, timeout_s: float) -> bool:
    """Whether a service answers its health check with SERVING within a deadline."""
    check = channel.unary_unary(
        f"/{health.SERVICE_NAME}/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    request = health_pb2.HealthCheckRequest(service=service_name)
    try:
        answer = await check(request, timeout=timeout_s, wait_for_ready=True)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
