"""Is the mesh the same after hours of sessions? ``python -m bench.soak``; see README.md.

Clients of every kind come and go by chance; now and then all of them have left, and what the
services hold then is to be what they held before.
"""

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
from matplotlib.figure import Figure
from websockets.exceptions import WebSocketException

from bench import tables
from bench.clients import BEHAVIOURS, Behaviour, Client, UnexpectedEndError, crowd, knocking
from bench.corpus import BYTES_PER_S, Clip
from bench.growth import slope
from bench.mesh import SERVICES, Served, served
from bench.report import (
    RESULTS,
    add_manifests,
    add_options,
    corpus,
    environment,
    hardware,
    result_name,
    write,
)
from bench.vitals import Monitor, Reading
from services.common.rpc import leaves

_SAMPLE_S = 5.0
_SHORTEST_S, _LONGEST_S = 5.0, 30.0
"""What a client says, in seconds of audio."""
_MOST_IDLE_S = 1.0
"""Between two sessions of a client."""
_ANSWER_S = 120.0
"""How long a session may take beyond twice the time of its audio."""
_RESUME_S = 5
"""How long the gateway waits for a client that may resume."""
_SETTLE_S = 15.0
"""From the last session at a rest to its reading: all that waits for a client has then given up."""
_EMPTY_S = 60.0
_KNOCKS = 8
"""Clients at each rest that come to a mesh that is full."""
_COUNTS = {
    "files": "file descriptors",
    "threads": "threads",
    "tasks": "tasks",
    "streams": "sessions or streams that are open",
}
"""What a service holds beside memory, as the picture says it."""


@dataclass(slots=True)
class Ends:
    """How sessions ended."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How often which, by what the client did."""
    faults: list[str] = field(default_factory=list)
    """As they should not, and whatever else should not have happened."""


def cut(clips: Sequence[Clip], rng: random.Random) -> Clip:
    """Some seconds of one of the clips, from anywhere in it."""
    whole = rng.choice(clips)
    duration_s = min(rng.uniform(_SHORTEST_S, _LONGEST_S), whole.audio_s)
    first = round(rng.uniform(0, whole.audio_s - duration_s) * BYTES_PER_S) // 2 * 2
    pcm = whole.pcm[first : first + round(duration_s * BYTES_PER_S) // 2 * 2]
    return Clip(whole.id, pcm, "", whole.language_code)


async def hold(name: str, behave: Behaviour, client: Client, ends: Ends) -> None:
    """Hold one session and count how it ended.

    Args:
        name: What the client does.
        behave: Does it.
        client: The client.
        ends: Gets the end, and the fault if it should have been another.

    """
    end = "otherwise"
    try:
        async with asyncio.timeout(2 * client.duration_s + _ANSWER_S):
            end = await behave(client)
    except* (
        UnexpectedEndError,
        TimeoutError,
        OSError,
        grpc.aio.AioRpcError,
        httpx.HTTPError,
        WebSocketException,
    ) as errors:
        told = "; ".join(f"{type(error).__name__} {error}" for error in leaves(errors))
        ends.faults.append(f"{name}: {told}")
    ends.counts[name][end] += 1


class Soak:
    """Clients that come and go, and what the mesh holds meanwhile."""

    def __init__(self, mesh: Served, clips: Sequence[Clip], args: argparse.Namespace) -> None:
        self._mesh = mesh
        self._clips = clips
        self._args = args
        self._monitor = Monitor(mesh)
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self._reading = asyncio.Lock()
        self.ends = Ends()
        self.samples: list[Reading] = []
        """Every few seconds."""
        self.rests: list[Reading] = []
        """With no client there: before the first, and after each part of the run."""

    async def run(self) -> None:
        """Let clients come and go, and rest in between."""
        async with asyncio.TaskGroup() as tasks:
            sampling = tasks.create_task(self._sample(), name="soak.sample")
            self.rests.append(await self._read())
            for _ in range(self._args.rests):
                until = time.monotonic() + 60 * self._args.minutes / self._args.rests
                async with asyncio.TaskGroup() as busy:
                    for number in range(self._args.at_once):
                        busy.create_task(self._client(until), name=f"soak.client.{number}")
                await self._rest()
            sampling.cancel()

    async def _sample(self) -> None:
        while True:
            self.samples.append(await self._read())
            await asyncio.sleep(_SAMPLE_S)

    async def _read(self) -> Reading:
        async with self._reading:  # which takes threads and files of those that are read
            at_min = round((time.monotonic() - self._began) / 60, 3)
            return Reading(at_min, await asyncio.to_thread(self._monitor.read))

    async def _client(self, until: float) -> None:
        while time.monotonic() < until:
            rng = self._chance()
            await asyncio.sleep(rng.uniform(0, _MOST_IDLE_S))
            name = rng.choice(list(BEHAVIOURS))
            await hold(name, BEHAVIOURS[name], self._newcomer(rng), self.ends)

    def _chance(self) -> random.Random:
        """The chance of the next session: the same seed gives the same sessions."""
        return random.Random(f"{self._args.seed}-{next(self._numbers)}")

    def _newcomer(self, rng: random.Random) -> Client:
        return Client(self._mesh, cut(self._clips, rng), self._args.pace, rng)

    async def _rest(self) -> None:
        """Wait until all sessions are over, try a full mesh, and read what stays behind."""
        if await self._emptied():
            async with crowd(self._mesh, _max_sessions(self._args)):
                for _ in range(_KNOCKS):
                    client = self._newcomer(self._chance())
                    await hold("one too many", knocking, client, self.ends)
            await self._emptied()
        await asyncio.sleep(_SETTLE_S)
        self.rests.append(await self._read())

    async def _emptied(self) -> bool:
        deadline = time.monotonic() + _EMPTY_S
        while (reading := await self._read()).streams:
            if time.monotonic() > deadline:
                held = {name: vitals.streams for name, vitals in reading.services.items()}
                self.ends.faults.append(f"still open with no client there: {held}")
                return False
            await asyncio.sleep(1)  # for sessions whose clients are gone
        return True


def logged(folder: Path) -> list[str]:
    """What the services of a mesh whose logs lie there have logged that is no news, no warning."""
    return [
        f"{log.stem}: {line}"
        for log in sorted(folder.glob("*/*.log"))
        for line in log.read_text().splitlines()
        if _is_fault(line)
    ]


def _is_fault(line: str) -> bool:
    try:
        return json.loads(line)["level"] in {"error", "critical"}
    except ValueError:  # what is no JSON comes from below
        return True


def summary(rests: Sequence[Reading], ends: Ends) -> dict[str, Any]:
    """A run as results are written.

    Args:
        rests: What the services held with no client there; the first reading is of a mesh that
            has not served yet, and is no part of any rise.
        ends: How the sessions ended.

    """
    return {
        "sessions": sum(count.total() for count in ends.counts.values()),
        "ends": {name: dict(count.most_common()) for name, count in sorted(ends.counts.items())},
        "faults": ends.faults,
        "rests": [rest.row() for rest in rests],
        "rises": {
            service: {
                measure: slope(
                    (0, rest.at_min, getattr(rest.services[service], measure)) for rest in rests[1:]
                )
                for measure in ("memory_mb", *_COUNTS)
            }
            for service in SERVICES
        },
    }


def draw(
    samples: Sequence[Reading],
    rests: Sequence[Reading],
    ends: Mapping[str, Mapping[str, int]],
    heading: str,
    path: Path,
) -> None:
    """What each service holds over time, at rest and busy, and how many sessions of each kind."""
    figure = Figure(figsize=(17, 8), layout="constrained")
    figure.suptitle(heading)
    above, below = figure.subplots(2, 4)
    *memories, sessions = above
    panels: list[tuple[Any, str, Sequence[str], str]] = [
        (axes, f"memory of {service}, MB", (service,), "memory_mb")
        for axes, service in zip(memories, SERVICES, strict=True)
    ]
    panels += [
        (axes, title, SERVICES, measure)
        for axes, (measure, title) in zip(below, _COUNTS.items(), strict=True)
    ]
    for axes, title, services, measure in panels:
        for service in services:
            place = SERVICES.index(service)
            # The last is the thinnest: lines that lie on each other can all be seen.
            for readings, style, width in ((samples, "-", 3.0 - place), (rests, "o", 0)):
                axes.plot(
                    [reading.at_min for reading in readings],
                    [getattr(reading.services[service], measure) for reading in readings],
                    style,
                    color=f"C{place}",
                    linewidth=width,
                    markersize=7 - 1.5 * place,
                    label=service if style == "-" else None,
                )
        axes.axhline(0, alpha=0)  # the scale begins there
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set(title=title, xlabel="minute")
        axes.grid(alpha=0.3)
    figure.legend(*below[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for place, (name, count) in enumerate(ends.items()):
        sessions.barh(-place, sum(count.values()), color="lightgrey")
        sessions.text(0, -place, f" {name.replace('`', '')}: {sum(count.values())}", va="center")
    sessions.set(title="sessions by what the client did", yticks=[])
    figure.savefig(path, dpi=100)


def _max_sessions(args: argparse.Namespace) -> int:
    """Of the gateway: room for the sessions of clients that left and are waited for, too."""
    return int(4 * args.at_once)


async def main(args: argparse.Namespace) -> None:
    """Soak a mesh, and write what came out."""
    clips = [recording.clip() for recording in corpus(args)]
    with tempfile.TemporaryDirectory(prefix="voxmesh-soak-") as folder:
        settings = {
            "GATEWAY_RESUME_S": str(_RESUME_S),
            "GATEWAY_MAX_SESSIONS": str(_max_sessions(args)),
            "ASR_MAX_STREAMS": str(_max_sessions(args)),
            "XDG_RUNTIME_DIR": folder,  # where its logs go
        }
        with served(args.model, settings | environment(args)) as mesh:
            soak = Soak(mesh, clips, args)
            await soak.run()
            soak.ends.faults += logged(Path(folder))
    name = result_name("soak", args)
    found = summary(soak.rests, soak.ends)
    options = {"minutes": args.minutes, "at_once": args.at_once, "pace": args.pace}
    write(name, args, options | {"seed": args.seed} | found)
    title = f"{Path(args.model).name} {args.engine}".strip()
    title += f", {args.at_once} clients at pace {args.pace:g}, {hardware()}; dots: no client there"
    draw(soak.samples, soak.rests, found["ends"], title, RESULTS / f"{name}.png")
    tables.update()
    print("\n".join(found["faults"]) or "every session ended as it should")
    raise SystemExit(bool(found["faults"]))


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="tiny.en")
    add_manifests(parser)
    parser.add_argument("--minutes", type=float, default=30, help="for which clients come and go")
    parser.add_argument("--rests", type=int, default=10, help="in how many parts")
    parser.add_argument("--at-once", type=int, default=4, help="clients")
    parser.add_argument("--pace", type=float, default=1, help="seconds of audio in a second")
    parser.add_argument("--seed", type=int, default=0, help="decides what each client does")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
