"""Does telling speakers apart cost the same after hours? ``python -m bench.longtalk``.

A conversation of hours is made of what single people read, with pauses, and sent to one stream of
one replica as fast as that takes it; see README.md.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyannote.core import Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from pyannote.metrics.identification import IdentificationErrorRate

from bench import tables
from bench.corpus import recordings
from bench.diarization import annotation
from bench.diarizer_client import Replica, Told, replica, tell
from bench.growth import slope
from bench.mixtures import Conversation, SpokenBy, conversation
from bench.report import write
from bench.whose_words import attributed, permuted_errors, wrong_words
from services.common.models import locate
from services.common.timeline import samples, seconds
from voxmesh.diarizer.v1 import diarizer_pb2 as pb

_PART_S = 600.0
_SEED = 4000
_BEFORE_S, _BEHIND_S = 0.3, 0.7
"""What the gateway sends around speech: its pre-roll, and what the VAD waits for more speech."""
_SLOPES = ("cpu_s_per_audio_s", "memory_mb", "checkpoint_bytes", "wrong_percent")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a replica had used, and held, when it had been told so much."""

    through_s: float
    cpu_s: float
    memory_mb: float
    checkpoint_bytes: int
    """Size of the largest one since the reading before; 0: there was none."""


class Odometer:
    """Reads what a replica has used, once for each part of a session."""

    def __init__(self, diarizer: Replica, part_s: float) -> None:
        self._diarizer = diarizer
        self._part_s = part_s
        self._checkpoint_bytes = 0
        self.readings = [self._read(0.0)]

    def answered(self, response: pb.DiarizeResponse) -> None:
        """Take note of an answer."""
        if response.HasField("checkpoint"):
            size = len(response.checkpoint.state)
            self._checkpoint_bytes = max(self._checkpoint_bytes, size)
        if response.HasField("turns"):
            through_s = seconds(response.turns.through_sample)
            if through_s // self._part_s > self.readings[-1].through_s // self._part_s:
                self.readings.append(self._read(through_s))

    def end(self, through_s: float) -> None:
        """Read for the last time, unless nearly all has been read."""
        if through_s - self.readings[-1].through_s > self._part_s / 2:
            self.readings.append(self._read(through_s))

    def _read(self, through_s: float) -> Reading:
        largest, self._checkpoint_bytes = self._checkpoint_bytes, 0
        return Reading(through_s, self._diarizer.cpu_s(), self._diarizer.memory_mb(), largest)


def sent(turns: Sequence[SpokenBy], length_s: float) -> list[tuple[float, float]]:
    """Where the gateway would send audio, by the truth instead of by a VAD, in seconds."""
    found: list[tuple[float, float]] = []
    for turn in sorted(turns, key=lambda turn: turn.start_s):
        begin, end = max(0.0, turn.start_s - _BEFORE_S), min(length_s, turn.end_s + _BEHIND_S)
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def parts(
    said: Conversation,
    told: Told,
    heard_s: Sequence[tuple[float, float]],
    readings: Sequence[Reading],
) -> list[dict[str, Any]]:
    """What each part cost, and how much of it was wrong, by who is who in the whole session."""
    truth, found = annotation(said.turns), annotation(told.turns)
    whose = DiarizationErrorRate().optimal_mapping(truth, found)
    named = found.rename_labels(whose)
    rows = []
    for before, after in pairwise(readings):
        begin, end = before.through_s, after.through_s
        audio_s = sum(max(0.0, min(e, end) - max(b, begin)) for b, e in heard_s)
        wrong = IdentificationErrorRate()(truth, named, uem=Timeline([Segment(begin, end)]))
        rows.append(
            {
                "through_min": round(end / 60, 1),
                "audio_s": round(audio_s, 1),
                "cpu_s_per_audio_s": round((after.cpu_s - before.cpu_s) / audio_s, 4),
                "memory_mb": after.memory_mb,
                "checkpoint_bytes": after.checkpoint_bytes,
                "speakers_told": len({t.speaker for t in told.turns if t.start_s < end}),
                "wrong_percent": round(100 * wrong, 2),
            }
        )
    return rows


async def main(args: argparse.Namespace) -> None:
    """Tell one long session apart, and write what came out."""
    length_s = 3600 * args.hours
    said = conversation(
        recordings(args.mixtures),
        seed=_SEED,
        speakers=args.speakers,
        overlap=args.overlap,
        length_s=length_s,
        longest_pause_s=args.longest_pause,
    )
    heard_s = sent(said.turns, length_s)
    async with replica([f"DIARIZER_MODEL={args.model}", *args.env]) as diarizer:
        odometer = Odometer(diarizer, _PART_S)
        told = await tell(
            diarizer,
            said,
            args.latency,
            heard=[(samples(begin), samples(end)) for begin, end in heard_s],
            answered=odometer.answered,
        )
        odometer.end(length_s)
    rows = parts(said, told, heard_s, odometer.readings)
    for row in rows:
        print(json.dumps(row))
    whose = attributed(said.words, told.messages)
    found = {
        "hours": args.hours,
        "latency_s": args.latency,
        "speakers": said.speakers,
        "speakers_told": len({turn.speaker for turn in told.turns}),
        "words": len(said.words),
        "words_wrong": wrong_words(said.words, whose),
        "words_permuted_errors": permuted_errors(said.words, whose),
        "heard_percent": round(100 * sum(end - begin for begin, end in heard_s) / length_s, 1),
        "memory_before_mb": odometer.readings[0].memory_mb,
        "parts": rows,
        "slopes": {
            name: slope((0, row["through_min"], row[name]) for row in rows) for name in _SLOPES
        },
    }
    write(f"longtalk-{args.name or Path(args.model).name}", args, found)
    tables.update()


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="diarizer-online", help="name or folder")
    parser.add_argument(
        "--mixtures", type=Path, required=True, help="manifest of what single people read"
    )
    parser.add_argument("--hours", type=float, default=2.0, help="length of the session")
    parser.add_argument("--speakers", type=int, default=4, help="people who talk")
    parser.add_argument("--overlap", type=float, default=0.05, help="share of the time")
    parser.add_argument(
        "--longest-pause", type=float, default=6.0, help="between two turns, in seconds"
    )
    parser.add_argument("--latency", type=float, default=1.0, help="seconds, 0.2 to 5")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a setting of the service"
    )
    parser.add_argument("--name", default="", help="of the result; default: the model")
    parser.set_defaults(engine="")
    return parser


if __name__ == "__main__":
    chosen = options().parse_args()
    locate(chosen.model)
    asyncio.run(main(chosen))
