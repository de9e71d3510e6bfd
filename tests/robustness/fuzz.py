"""Broken input from every side: ``python -m tests.robustness.fuzz --number 10000``.

Valid messages are mutated and sent to a gateway in this process, with scripted stages behind it.
Whatever comes, the refusal is typed, nothing is logged as unexpected, and when all is over no task,
no file and no session is left. The seed is printed, and gives the same input again.
"""

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import httpx
import psutil
from structlog.testing import capture_logs

from services.gateway.servicer import add_services
from tests.gateway.fakes import (
    RATE,
    FakeAsr,
    FakeDiarizer,
    FakeTranslator,
    FakeVad,
    Mesh,
    running,
    served,
    spans_of,
    words_at,
)
from tests.robustness.doors import Doors, Mutator
from tests.settings.serving import until

_PATIENCE_S = 20.0
"""For one connection."""
_AT_ONCE = 8


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    ends: Counter[str] = field(default_factory=Counter)
    """How connections ended, and how many."""
    violations: list[str] = field(default_factory=list)
    grown_mb: float = 0.0
    """Memory after the second half of the run over memory after the first."""


@asynccontextmanager
async def _doors(mesh: Mesh) -> AsyncIterator[Doors]:
    server = grpc.aio.server()
    add_services(mesh.gateway, server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        served(mesh.gateway) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=_PATIENCE_S
        ) as client,
    ):
        yield Doors(port, channel, client)
    await server.stop(grace=None)


async def fuzz(number: int, seed: int) -> Outcome:
    """Send broken input over so many connections."""
    outcome = Outcome()
    process = psutil.Process()
    said, diarizer = words_at(0.1), FakeDiarizer([(1, 0, RATE)])
    stages = FakeVad(spans_of(said)), FakeAsr(said), diarizer, FakeTranslator()
    settings: dict[str, Any] = {
        "resume_s": 0.1,
        "idle_s": 2.0,
        "max_session_s": 60,
        "max_sessions": 4 * _AT_ONCE,
    }
    with capture_logs() as logs:
        async with (
            running(*stages, **settings) as mesh,
            _doors(mesh) as doors,
        ):
            await _many(doors, range(_AT_ONCE), seed, outcome)
            tasks, files = len(asyncio.all_tasks()), process.num_fds()
            half = number // 2
            await _many(doors, range(_AT_ONCE, half), seed, outcome)
            used = process.memory_info().rss
            await _many(doors, range(half, number), seed, outcome)
            outcome.grown_mb = (process.memory_info().rss - used) / 1e6

            def is_over() -> bool:
                return (
                    not mesh.gateway.open_sessions
                    and len(asyncio.all_tasks()) <= tasks + _AT_ONCE
                    and process.num_fds() <= files + _AT_ONCE
                )

            try:
                await until(is_over, within_s=_PATIENCE_S)
            except TimeoutError:
                outcome.violations.append(
                    f"left over: {mesh.gateway.open_sessions} sessions, "
                    f"{len(asyncio.all_tasks())} tasks ({tasks} before), "
                    f"{process.num_fds()} files ({files} before)"
                )
    outcome.violations += [f"logged: {log}" for log in logs if log["event"] == "unexpected error"]
    return outcome


async def _many(doors: Doors, numbers: range, seed: int, outcome: Outcome) -> None:
    left = iter(numbers)

    async def worker() -> None:
        for number in left:
            mutator = Mutator(random.Random(f"{seed}-{number}"))
            door = doors.all[number % len(doors.all)]
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    end = await door(mutator)
            except TimeoutError:
                end = f"BUG: {door.__name__} was not answered"
            outcome.ends[end] += 1
            if end.startswith("BUG"):
                outcome.violations.append(f"number {number}: {end}")

    async with asyncio.TaskGroup() as tasks:
        for name in range(_AT_ONCE):
            tasks.create_task(worker(), name=f"fuzz.{name}")


def main() -> None:
    """Run; the exit code says whether everything was refused as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    outcome = asyncio.run(fuzz(chosen.number, chosen.seed))
    for end, count in outcome.ends.most_common():
        print(f"{count:6} {end}")
    print(f"memory grew by {outcome.grown_mb:.1f} MB in the second half")
    print("\n".join(outcome.violations) or "everything was refused as it should be")
    raise SystemExit(bool(outcome.violations))


if __name__ == "__main__":
    main()
