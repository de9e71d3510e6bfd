"""Runs the gateway and writes down what used its time: ``python -m bench.parts FILE``.

Every task of the gateway has a name that says what it does, and each step of each of them is timed,
in CPU time of its thread. What is left is the event loop's own: sockets, gRPC's queue, timers.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.common.process import start
from services.gateway.__main__ import main
from services.gateway.config import Settings

FRAMES = "frames"
"""What takes WebSocket frames apart; it is no task."""
LOOP = "loop"
"""The rest of the event loop's thread."""
THREADS = "threads"
"""All other threads: gRPC's own, and those that decode containers."""


class _Timed(Coroutine[Any, Any, Any]):
    """A coroutine that knows how long it has computed, in nanoseconds."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
        self.used_ns = 0

    def send(self, value: Any) -> Any:
        """Go on."""
        began_ns = time.thread_time_ns()
        try:
            return self._coroutine.send(value)
        finally:
            self.used_ns += time.thread_time_ns() - began_ns

    def throw(self, *error: Any) -> Any:
        """Go on with an exception."""
        began_ns = time.thread_time_ns()
        try:
            return self._coroutine.throw(*error)
        finally:
            self.used_ns += time.thread_time_ns() - began_ns

    def close(self) -> None:
        """End."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


class Clock:
    """CPU time by the names of tasks, in nanoseconds."""

    def __init__(self) -> None:
        self.used_ns: Counter[str] = Counter()
        self._began = self._now()

    def factory(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> "asyncio.Task[Any]":
        """Make a task that is timed."""
        timed = _Timed(coroutine)
        task: asyncio.Task[Any] = asyncio.Task(timed, loop=loop, **options)
        unnamed = task.get_name()

        def end(_task: "asyncio.Task[Any]") -> None:
            name = task.get_name()
            self.used_ns[timed.name if name == unnamed else name] += timed.used_ns

        task.add_done_callback(end)
        return task

    def watch_frames(self) -> None:
        """Time what takes WebSocket frames apart."""
        received = WebSocketsSansIOProtocol.data_received

        def timed(protocol: WebSocketsSansIOProtocol, data: bytes) -> None:
            began_ns = time.thread_time_ns()
            received(protocol, data)
            self.used_ns[FRAMES] += time.thread_time_ns() - began_ns

        WebSocketsSansIOProtocol.data_received = timed  # type: ignore[assignment, method-assign]

    def save(self, path: Path) -> None:
        """Write down how many seconds each task that has ended has used, and the rest."""
        path.write_text(json.dumps(self._seconds()))

    def _seconds(self) -> dict[str, float]:
        before, after = self._began, self._now()
        loop_ns, process_ns = (now - then for then, now in zip(before, after, strict=True))
        used = self.used_ns | {
            LOOP: loop_ns - self.used_ns.total(),
            THREADS: process_ns - loop_ns,
        }
        return {name: round(ns / 1e9, 3) for name, ns in used.items()}

    @staticmethod
    def _now() -> tuple[int, int]:
        return time.thread_time_ns(), time.process_time_ns()


async def timed(chosen: Settings) -> None:
    """Run the gateway to its end, then write what used its time."""
    clock = Clock()
    clock.watch_frames()
    asyncio.get_running_loop().set_task_factory(clock.factory)
    await main(chosen)
    clock.save(Path(sys.argv[1]))


if __name__ == "__main__":
    start("gateway", Settings, timed, reasons=(OSError,))
