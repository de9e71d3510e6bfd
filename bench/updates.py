"""Does an update cost the same at minute 30 as at minute 1? ``python -m bench.updates``.

A recording is played over and over into sessions of ``WS /asr``, short and long ones, in both of
its modes, one after the other, on a mesh of its own.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import psutil
from matplotlib.figure import Figure

from bench import asr_client, tables
from bench.corpus import two_cities
from bench.mesh import Served, served
from bench.report import RESULTS, add_options, environment, hardware, result_name, write

_MINUTE_BYTES = 60 * 32_000
_PANELS = (
    ("sent_bytes", "bytes sent"),
    ("messages", "messages sent"),
    ("gateway_cpu_s", "CPU seconds of the gateway"),
)


@dataclass(frozen=True, slots=True)
class Minute:
    """What one minute of audio cost."""

    sent_bytes: int
    messages: int
    gateway_cpu_s: float


@dataclass(frozen=True, slots=True)
class Grown:
    """One session."""

    mode: str
    num_minutes: int
    minutes: list[Minute]
    num_words: int
    """In the client's lines at the end."""

    @property
    def label(self) -> str:
        """As in the picture's legend."""
        return f"{self.mode}, {self.num_minutes} min"


class Meter:
    """Counts what a session is sent, and what its gateway has used, minute by minute."""

    def __init__(self, gateway: psutil.Process, num_minutes: int) -> None:
        self._gateway = gateway
        self._bytes = [0] * num_minutes
        self._messages = [0] * num_minutes
        self._cpu_s = [self._used_s()]

    def count(self, sent_s: float, message: str) -> None:
        """Take note of a message; what follows the audio belongs to its last minute."""
        minute = min(int(sent_s // 60), len(self._bytes) - 1)
        while len(self._cpu_s) <= minute:
            self._cpu_s.append(self._used_s())
        self._bytes[minute] += len(message.encode())
        self._messages[minute] += 1

    def minutes(self) -> list[Minute]:
        """What each minute cost; call it when the session is over."""
        self._cpu_s.append(self._used_s())
        used = [round(after - before, 2) for before, after in pairwise(self._cpu_s)]
        return [Minute(*row) for row in zip(self._bytes, self._messages, used, strict=True)]

    def _used_s(self) -> float:
        used = self._gateway.cpu_times()
        return used.user + used.system


async def grow(mesh: Served, args: argparse.Namespace, mode: str, num_minutes: int) -> Grown:
    """Play one session to its end."""
    pcm = two_cities().clip().pcm
    pcm = (pcm * (num_minutes * _MINUTE_BYTES // len(pcm) + 1))[: num_minutes * _MINUTE_BYTES]
    meter = Meter(mesh.service("gateway"), num_minutes)
    watched = await asr_client.play(
        mesh.ws_url,
        pcm,
        language_code="en",
        speed=args.speed,
        mode=mode,
        on_message=meter.count,
    )
    return Grown(mode, num_minutes, meter.minutes(), len(watched.text.split()))


def draw(sessions: Sequence[Grown], title: str, path: Path) -> None:
    """One panel per cost, one line per session."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(title)
    for axes, (cost, name) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for session in sorted(sessions, key=lambda session: -session.num_minutes):
            values = [getattr(minute, cost) for minute in session.minutes]
            style = "-" if session.mode == "diff" else "--"
            axes.plot(range(1, len(values) + 1), values, style, marker=".", label=session.label)
        axes.set(title=f"{name}, each minute", xlabel="minute of the session")
        if cost == "sent_bytes":  # the two modes differ by far more than minutes do
            axes.set(yscale="log", ylim=(1e3, 1e6))
        else:
            axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path, dpi=100)


async def main(args: argparse.Namespace) -> None:
    """Measure, and write what came out as JSON and as a picture."""
    sessions = []
    with served(args.model, environment(args)) as mesh:
        for mode, num_minutes in [("diff", args.short), ("diff", args.long), ("full", args.long)]:
            sessions.append(await grow(mesh, args, mode, num_minutes))
            print(json.dumps(asdict(sessions[-1])))
    name = result_name("updates", args)
    write(name, args, {"speed": args.speed, "sessions": [asdict(session) for session in sessions]})
    title = f"WS /asr, one session, played at {args.speed:g} times the pace of speech, {hardware()}"
    draw(sessions, title, RESULTS / f"{name}.png")
    tables.update()


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="tiny.en")
    parser.add_argument("--speed", type=float, default=8, help="seconds of audio in a second")
    parser.add_argument("--short", type=int, default=3, help="minutes of the short session")
    parser.add_argument("--long", type=int, default=30, help="minutes of the long sessions")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
