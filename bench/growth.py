"""Does a session cost the same at hour two as at minute three? ``python -m bench.growth``.

Long sessions are made of recordings, one after the other, and played into ``Converse``: the CPU
time and the delays of each minute. See README.md for what a pace other than 1 can tell and what
not.
"""

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench import tables
from bench.converse import Heard, converse
from bench.corpus import Clip, looped
from bench.delays import Clockwork
from bench.mesh import Served, served
from bench.report import (
    RESULTS,
    add_manifests,
    add_options,
    corpus,
    environment,
    hardware,
    open_ledger,
    quantiles,
    result_name,
    write,
)
from bench.score import compare


@dataclass(frozen=True, slots=True)
class Used:
    """What the mesh had used when so much of the audio had been sent."""

    audio_s: float
    cpu_s: float
    memory_mb: float


class Odometer:
    """Reads what the mesh has used, once for each minute of a session's audio."""

    def __init__(self, mesh: Served) -> None:
        self._mesh = mesh
        self._sent_s = 0.0
        self.readings: list[Used] = []
        self.read()

    def sent(self, audio_s: float) -> None:
        """Take note of audio."""
        minute = self._sent_s // 60
        self._sent_s = round(self._sent_s + audio_s, 3)  # tenths add up to no whole minute
        if self._sent_s // 60 > minute:
            self.read()

    def read(self) -> None:
        """Read now."""
        memory_mb = round(self._mesh.memory_bytes() / 1e6, 1)
        self.readings.append(Used(self._sent_s, self._mesh.cpu_s(), memory_mb))


async def play(mesh: Served, clip: Clip, pace: float) -> dict[str, Any]:
    """Play one session to its end, as a ledger keeps it."""
    odometer = Odometer(mesh)
    heard = await converse(mesh.grpc_target, clip, pace=pace, on_sent=odometer.sent)
    if heard.failure:
        raise RuntimeError(f"{clip.id}: {heard.failure}")
    return {"heard": heard.row(), "readings": [asdict(used) for used in odometer.readings]}


def summary(clip: Clip, heard: Heard, readings: Sequence[Used], num_words: int) -> dict[str, Any]:
    """A session as results are written.

    Args:
        clip: What was played.
        heard: What was heard.
        readings: What it cost.
        num_words: After so many words the recordings begin again.

    """
    delays = Clockwork(clip.words, heard, clip.language_code).delays()
    minutes: list[dict[str, Any]] = []
    for number, (before, after) in enumerate(pairwise(readings)):
        own = [delay.final_s for delay in delays if delay.end_s // 60 == number]
        minutes.append(
            {
                "cpu_s_per_audio_s": round(
                    (after.cpu_s - before.cpu_s) / (after.audio_s - before.audio_s), 3
                ),
                "final_s": quantiles(own, (50, 95)),
                "memory_mb": after.memory_mb,
            }
        )
    costs = [(0, number, minute["cpu_s_per_audio_s"]) for number, minute in enumerate(minutes)]
    finals = [(delay.index % num_words, delay.end_s / 60, delay.final_s) for delay in delays]
    return {
        "session": clip.id,
        "minutes_played": round(clip.audio_s / 60, 1),
        **compare(clip.text, heard.text, clip.language_code).tally.row(),
        "final_s": quantiles([delay.final_s for delay in delays]),
        "final_slope": slope(finals),
        "cpu_slope": slope(costs),
        "client_held_s": round(heard.held_s, 2),
        "minutes": minutes,
    }


def slope(points: Iterable[tuple[int, float, float]]) -> dict[str, float]:
    """By how much a value rises in an hour, all else being equal.

    Words and minutes differ in what is said; the same words come again each time the recordings do.
    So each value is compared with those of its own kind alone: least squares after the mean of the
    kind is taken from both minute and value.

    Args:
        points: (kind, minute, value).

    Returns:
        ``per_hour``, and ``error``, its standard error: a rise below two of them is no rise. Empty:
        nothing comes again.

    """
    kinds = defaultdict(list)
    for kind, minute, value in points:
        kinds[kind].append((minute, value))
    centred = [np.array(own) - np.mean(own, axis=0) for own in kinds.values() if len(own) > 1]
    if not centred:
        return {}
    minutes, values = np.concatenate(centred).T
    spread = float((minutes**2).sum())
    freedom = len(minutes) - len(centred) - 1
    if freedom < 1 or not spread:
        return {}
    rise = float((minutes * values).sum()) / spread
    error = float(np.sqrt(((values - rise * minutes) ** 2).sum() / freedom / spread))
    return {"per_hour": round(60 * rise, 4), "error": round(60 * error, 4)}


async def main(args: argparse.Namespace) -> None:
    """Play the sessions one after the other, and write what came out."""
    name = f"{result_name('growth', args)}-pace{args.pace:g}"
    ledger = open_ledger(name, args)
    parts = [recording.clip() for recording in corpus(args, timed=True)]
    num_words = sum(len(part.words) for part in parts)
    found = []
    for minutes in args.minutes:
        clip = looped(f"{minutes:g} min", parts, 60 * minutes)
        if clip.id not in ledger:
            ledger.add(clip.id, await _measure(args, clip))
        kept = ledger[clip.id]
        readings = [Used(**used) for used in kept["readings"]]
        found.append(summary(clip, Heard.of(kept["heard"]), readings, num_words))
        print(json.dumps({key: found[-1][key] for key in found[-1] if key != "minutes"}))
    write(name, args, {"pace": args.pace, "sessions": found})
    title = f"{Path(args.model).name} {args.engine}".strip() + f" at pace {args.pace:g}"
    draw(found, f"{title}, {hardware()}", RESULTS / f"{name}.png")
    ledger.close()
    tables.update()


async def _measure(args: argparse.Namespace, clip: Clip) -> dict[str, Any]:
    with served(args.model, environment(args)) as mesh:
        return await play(mesh, clip, args.pace)


def draw(sessions: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Cost, delay and memory, minute by minute."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    figure.suptitle(title)
    cost, delay, memory = figure.subplots(1, 3)
    for session in sorted(sessions, key=lambda session: -session["minutes_played"]):
        minutes = session["minutes"]
        numbers = range(1, len(minutes) + 1)
        label = session["session"]
        cost.plot(numbers, [m["cpu_s_per_audio_s"] for m in minutes], marker=".", label=label)
        medians = [m["final_s"].get("p50", float("nan")) for m in minutes]
        delay.plot(numbers, medians, marker=".", label=f"{label}, p50")
        memory.plot(numbers, [m["memory_mb"] for m in minutes], marker=".", label=label)
    cost.set(title="CPU seconds for a second of audio", ylabel="CPU s")
    delay.set(title="delay of final words", ylabel="s")
    memory.set(title="memory of the mesh", ylabel="MB")
    for axes in (cost, delay, memory):
        axes.axhline(0, alpha=0)  # the scale begins there
        axes.set_xlabel("minute of the session")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="tiny.en")
    add_manifests(parser)
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[3, 30], help="lengths of the sessions"
    )
    parser.add_argument("--pace", type=float, default=1, help="seconds of audio in a second")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
