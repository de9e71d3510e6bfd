"""What does the gateway itself cost? ``python -m bench.cost``; see README.md.

Sessions at the pace of speech over each protocol, more than any recogniser of the machine could
serve: what the stages answered to one session is recorded once, and answered to each of them.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import tables
from bench.converse import FRAME_S, converse
from bench.corpus import BYTES_PER_S, Clip, join
from bench.ledger import Ledger
from bench.mesh import Served, free_port, served
from bench.parts import FRAMES, LOOP, THREADS
from bench.report import (
    add_manifests,
    add_options,
    corpus,
    environment,
    open_ledger,
    quantiles,
    result_name,
    write,
)
from bench.speakers import SPEAKERS, Speak
from bench.tape import ASR, VAD, Tape, recording, save, target

_MIXED = "all of them, mixed"
_RAMP_S = 10.0
"""In which the sessions begin, one after the other: no two of them are in phase."""
_SETTLE_S = 2.0
"""From the last one's begin, and to the first one's end, nothing is measured."""
_SILENCE_S = 2.0
"""Behind the recording, so that its last turn ends by itself."""
_SAMPLE_S = 4.0
_LOOK_S = 0.25
"""Between two questions how soon the gateway answers."""
_READY_S = 30.0

_PARTS = {
    FRAMES: "WebSocket frames of clients",
    "session.feed": "decode, resample, ring",
    "vad.write": "send to the VAD",
    "vad.read": "hear the VAD, route the audio",
    "asr.write": "send to the recogniser",
    "asr.read": "hear the recogniser, transcript",
    LOOP: "event loop: sockets, gRPC's queue, timers",
    THREADS: "gRPC's threads",
}
"""What tasks do, by their names."""
_PROTOCOLS = (
    *("converse.", "wlk.", "deepgram.", "realtime.", "riva."),
    *("HandleExceptions[", "WebSocketsSansIOProtocol."),
)
"""How the names of tasks begin that receive what a client says and tell it what is new."""
_SPEAKING = "protocols: receive, view, send"
_REST = "everything else"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far, and what it holds."""

    at_s: float
    cpu_s: float
    rss_mb: float
    """Resident, what it shares with others included."""
    pss_mb: float
    """The same, of what is shared its share."""
    uss_mb: float
    """Resident for it and for no other."""

    @classmethod
    def of(cls, process: psutil.Process) -> "Usage":
        """Read it; takes some milliseconds."""
        at_s, times, memory = time.monotonic(), process.cpu_times(), process.memory_full_info()
        held = (memory.rss, memory.pss, memory.uss)
        return cls(at_s, times.user + times.system, *(round(size / 1e6, 1) for size in held))


@asynccontextmanager
async def gateway(
    folder: Path, settings: Mapping[str, str], parts: Path | None = None
) -> AsyncIterator[Served]:
    """Run a gateway before the stages whose sockets are in a folder.

    Args:
        folder: Where they are.
        settings: The gateway's, where they are not the default.
        parts: Gets what used its time, when it ends; None: nothing takes time to find that out.

    Raises:
        RuntimeError: It did not become ready.

    """
    module = ["services.gateway"] if parts is None else ["bench.parts", str(parts)]
    port, grpc_port = free_port(), free_port()
    chosen = {
        "GATEWAY_PORT": str(port),
        "GATEWAY_GRPC_ADDRESS": f"127.0.0.1:{grpc_port}",
        "GATEWAY_VAD_TARGET": target(folder, VAD),
        "GATEWAY_ASR_TARGETS": json.dumps([target(folder, ASR)]),
        "GATEWAY_LOG_LEVEL": "warning",
    }
    with _child(*module, settings={**chosen, **settings}) as process:
        url = f"http://127.0.0.1:{port}"
        await _ready(url, process)
        yield Served(url, f"127.0.0.1:{grpc_port}", process)


async def _ready(url: str, process: psutil.Process) -> None:
    deadline = time.monotonic() + _READY_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline and process.is_running():
            with suppress(httpx.TransportError):
                if (await client.get(f"{url}/ready")).is_success:
                    return
            await asyncio.sleep(0.1)
    raise RuntimeError("the gateway did not become ready")


@contextmanager
def _child(*module: str, settings: Mapping[str, str]) -> Iterator[psutil.Process]:
    """A process of Python's, which ends with the ``with`` block."""
    command = [sys.executable, "-m", *module]
    with subprocess.Popen(command, env={**os.environ, **settings}) as child:
        try:
            yield psutil.Process(child.pid)
        finally:
            child.terminate()


@contextmanager
def replayed(tape: Tape) -> Iterator[Path]:
    """Run stages that answer as a tape says; the folder of their sockets."""
    with _folder() as folder:
        path = folder / "tape.json"
        save(tape, path)
        with _child("bench.replay", str(path), settings={}):
            yield folder


async def record(args: argparse.Namespace, clip: Clip) -> Tape:
    """Play a clip into a gateway before real stages, at the pace of speech.

    Raises:
        RuntimeError: The session failed.

    """
    with ExitStack() as stack:
        own, runtime = stack.enter_context(_folder()), stack.enter_context(_folder())
        settings = environment(args) | {"XDG_RUNTIME_DIR": str(runtime)}
        stack.enter_context(served(args.model, settings))
        [stages] = {path.parent for path in runtime.rglob("*.sock")}
        async with recording(own, stages) as tape, gateway(own, environment(args)) as mesh:
            heard = await converse(mesh.grpc_target, clip)
        if heard.failure:
            raise RuntimeError(heard.failure)
        return tape()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="voxmesh-") as folder:
        yield Path(folder)


async def load(
    mesh: Served, speakers: Sequence[Speak], clip: Clip, said: str, frame_s: float
) -> dict[str, Any]:
    """Hold a session with each speaker, all at the same time; what the gateway used meanwhile.

    Args:
        mesh: The gateway.
        speakers: One for each session.
        clip: What each of them plays.
        said: What each of them is to hear.
        frame_s: Audio in a message, in seconds.

    Raises:
        RuntimeError: A session has heard something else.

    """
    pause_s = _RAMP_S / len(speakers)
    empty = Usage.of(mesh.process)
    late_s: list[float] = []

    async def play(number: int, speak: Speak) -> None:
        await asyncio.sleep(number * pause_s)
        spoken = await speak(mesh, clip, frame_s)
        late_s.append(spoken.late_s)
        if spoken.text.split() != said.split():
            raise RuntimeError(f"heard {spoken.text!r} and not {said!r}")

    async with asyncio.TaskGroup() as tasks:
        for number, speak in enumerate(speakers):
            tasks.create_task(play(number, speak), name=f"bench.client.{number}")
        await asyncio.sleep(_RAMP_S + _SETTLE_S)
        readings, answers_s = await _watch(mesh, clip.audio_s - _RAMP_S - 2 * _SETTLE_S)
    return summary(len(speakers), empty, readings, answers_s, max(late_s))


async def _watch(mesh: Served, duration_s: float) -> tuple[list[Usage], list[float]]:
    """Read what the gateway uses and how soon it answers, for a while."""
    answers_s: list[float] = []

    async def look() -> None:
        async with httpx.AsyncClient(base_url=mesh.url, trust_env=False) as client:
            while True:
                asked_s = time.monotonic()
                (await client.get("/v1/models")).raise_for_status()
                answers_s.append(time.monotonic() - asked_s)
                await asyncio.sleep(_LOOK_S)

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look(), name="bench.look")
        readings = [await asyncio.to_thread(Usage.of, mesh.process)]
        for _ in range(max(1, round(duration_s / _SAMPLE_S))):
            await asyncio.sleep(_SAMPLE_S)
            readings.append(await asyncio.to_thread(Usage.of, mesh.process))
        looking.cancel()
    return readings, answers_s


def summary(
    sessions: int,
    empty: Usage,
    readings: Sequence[Usage],
    answers_s: Sequence[float],
    late_s: float,
) -> dict[str, Any]:
    """What so many sessions cost, as results are written.

    Args:
        sessions: At once.
        empty: The gateway before the first one.
        readings: The gateway while all of them spoke.
        answers_s: How soon it answered other questions meanwhile.
        late_s: By how much a client was late with a message, at worst.

    """
    first, last = readings[0], readings[-1]
    cores = (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)
    memory = {
        name: (getattr(empty, name), max(getattr(reading, name) for reading in readings))
        for name in ("rss_mb", "pss_mb", "uss_mb")
    }
    return {
        "sessions": sessions,
        "cores": round(cores, 3),
        "cores_per_session": round(cores / sessions, 4),
        **{name: most for name, (_, most) in memory.items()},
        **{f"{name}_empty": before for name, (before, _) in memory.items()},
        **{
            f"{name}_per_session": round((most - before) / sessions, 2)
            for name, (before, most) in memory.items()
        },
        "answer_s": quantiles(answers_s),
        "client_late_s": round(late_s, 3),
        "readings": [asdict(reading) for reading in readings],
    }


def in_parts(used: Mapping[str, float], audio_s: float) -> list[dict[str, Any]]:
    """What used the gateway's time, the largest first.

    Args:
        used: CPU seconds by the names of tasks.
        audio_s: Audio of all sessions, in seconds.

    """
    parts: defaultdict[str, float] = defaultdict(float)
    for name, cpu_s in used.items():
        unlisted = _SPEAKING if name.startswith(_PROTOCOLS) else _REST
        parts[_PARTS.get(name, unlisted)] += cpu_s
    total = sum(parts.values())
    return [
        {
            "part": part,
            "cpu_ms_per_audio_s": round(1000 * cpu_s / audio_s, 3),
            "percent": round(100 * cpu_s / total, 1),
        }
        for part, cpu_s in sorted(parts.items(), key=lambda row: -row[1])
    ]


async def _measure(
    args: argparse.Namespace, stages: Path, tape: Tape, clip: Clip, ledger: Ledger
) -> dict[str, Any]:
    alone = {label: [speak] * args.sessions for label, speak in SPEAKERS.items()}
    mixed = list(islice(cycle(SPEAKERS.values()), args.sessions))
    said, frame_s = tape.text(), args.frame_ms / 1000
    for label, speakers in {**alone, _MIXED: mixed}.items():
        if label not in ledger:
            async with gateway(stages, environment(args)) as mesh:
                ledger.add(label, await load(mesh, speakers, clip, said, frame_s))
            print(label, {**ledger[label], "readings": "..."})
    if "parts" not in ledger:
        path = stages / "parts.json"
        async with gateway(stages, environment(args), path) as mesh:
            await load(mesh, mixed, clip, said, frame_s)
        used = json.loads(path.read_text())
        ledger.add("parts", {"tasks": used, "in": in_parts(used, len(mixed) * clip.audio_s)})
    return {
        "loads": [{"protocols": label, **ledger[label]} for label in (*alone, _MIXED)],
        "parts": ledger["parts"]["in"],
        "tasks_cpu_s": ledger["parts"]["tasks"],
    }


async def main(args: argparse.Namespace) -> None:
    """Measure protocol by protocol, and write what came out."""
    name = result_name("cost", args)
    ledger = open_ledger(name, args)
    clip = corpus(args)[0].clip()
    cut = Clip(clip.id, clip.pcm[: round(args.seconds * BYTES_PER_S)], "", clip.language_code)
    clip = join(clip.id, [cut], [_SILENCE_S])
    if "tape" not in ledger:
        ledger.add("tape", (await record(args, clip)).row())
    tape = Tape.of(ledger["tape"])
    with replayed(tape) as stages:
        found = await _measure(args, stages, tape, clip, ledger)
    about = {"recording": clip.id, "audio_s": round(clip.audio_s, 1), "frame_ms": args.frame_ms}
    write(name, args, about | found)
    ledger.close()
    tables.update()


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="tiny.en")
    add_manifests(parser)
    parser.add_argument("--sessions", type=int, default=50, help="at once")
    parser.add_argument("--seconds", type=float, default=44, help="of the first recording")
    parser.add_argument(
        "--frame-ms", type=int, default=round(FRAME_S * 1000), help="audio in one message"
    )
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
