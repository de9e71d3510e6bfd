"""``grpc.health.v1`` of a process whose services are well together or not at all.

Unlike the servicer that comes with gRPC, it ends its watches when the process stops: they would
hold up the end for as long as streams may take to finish.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Says for each service, and for ``""``, whether it can do its work. At first it cannot."""

    def __init__(self, service_names: Sequence[str]) -> None:
        self._names = {"", *service_names}
        self._serving = False
        self._stopping = False
        self._changed = asyncio.Condition()

    async def report(self, serving: bool) -> None:
        """Say from now on whether the process can do its work."""
        async with self._changed:
            self._serving = serving
            self._changed.notify_all()

    async def stop(self) -> None:
        """Say for good that it cannot, and end the watches."""
        async with self._changed:
            self._stopping = True
            self._changed.notify_all()

    async def Check(  # noqa: N802 -- gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Answer once. NOT_FOUND: there is no such service."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return _answer(self._status(request.service))

    async def Watch(  # noqa: N802 -- gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Answer at once and at every change."""
        told = None
        while True:
            now = self._status(request.service)
            stopping = self._stopping
            if now != told:
                await context.write(_answer(now))
                told = now
            if stopping:
                return
            async with self._changed:
                while not self._stopping and self._status(request.service) == told:
                    await self._changed.wait()

    def _status(self, service: str) -> int:
        if service not in self._names:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._serving and not self._stopping:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING


def _answer(status: int) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=status)
