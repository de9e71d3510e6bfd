"""Who spoke when, and how soon is it known? ``python -m bench.diarization``; see README.md.

Conversations are sent to a replica of the diarizer service as fast as it takes them. What it says
of a moment before it calls it decided is compared with the truth; how soon it says it is counted in
audio, for the replica has no clock.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio
import psutil
from faster_whisper import decode_audio
from matplotlib.figure import Figure
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

from bench import tables
from bench.corpus import recordings
from bench.mixtures import Conversation, SpokenBy, conversation
from bench.report import RESULTS, hardware, quantiles, write
from services.common.audio import float_to_pcm
from services.common.channel import open_channel, serves
from services.common.models import locate
from services.common.timeline import SAMPLE_RATE_HZ, samples, seconds
from voxmesh.common.v1 import audio_pb2, stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

_MESSAGE_SAMPLES = samples(0.1)
_READY_TRIES = 100
_LONG_TURN_S = 1.0
"""Turns of the truth that are shorter are not asked when they were known."""


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation, where it comes from, and what of it counts."""

    group: str
    conversation: Conversation
    scored_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of a conversation."""

    turns: tuple[SpokenBy, ...]
    """What was decided."""
    first_told: tuple[tuple[float, SpokenBy], ...]
    """How much audio there was when something was said of a stretch, decided or not."""
    cpu_s: float


async def main(args: argparse.Namespace) -> None:
    """Measure, and write what came out as JSON and as a picture."""
    cases = [*_recorded(args.conversations), *_mixed(args.mixtures, args.seeds)]
    found, pictured = [], []
    with _replica([f"DIARIZER_MODEL={args.model}", *args.env]) as (target, process):
        async with open_channel(target) as channel:
            await _ready(channel)
            stub = rpc.DiarizerServiceStub(channel)
            for latency_s in args.latencies:
                for case in cases:
                    told = await _tell(stub, case.conversation, latency_s, process)
                    row = score(case, told)
                    found.append({"latency_s": latency_s, **row})
                    print(json.dumps(found[-1]))
                    if latency_s == args.latencies[0]:
                        pictured.append((case, told))
    name = f"diarization-{args.name or Path(args.model).name}"
    rows = [
        {"latency_s": latency_s, **_together(rows)}
        for latency_s in args.latencies
        for rows in _by_group([row for row in found if row["latency_s"] == latency_s])
    ]
    write(name, args, {"groups": rows, "conversations": found})
    _draw(pictured[: args.pictures], RESULTS / f"{name}.png")
    tables.update()


async def _ready(channel: grpc.aio.Channel) -> None:
    for _ in range(_READY_TRIES):
        if await serves(channel, "", timeout_s=1):
            return
        await asyncio.sleep(0.2)
    raise TimeoutError("the diarizer was not ready in time")


def score(case: Case, told: Told) -> dict[str, Any]:
    """Hold what was told against the truth."""
    truth, heard = _annotation(case.conversation.turns), _annotation(told.turns)
    scored = Timeline([Segment(*case.scored_s)])
    whole = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    parts = whole(truth, heard, uem=scored, detailed=True)
    # pyannote's collar is what is left out on both sides together.
    forgiving = DiarizationErrorRate(collar=0.5, skip_overlap=False)
    tolerant = forgiving(truth, heard, uem=scored, detailed=True)
    jaccard = JaccardErrorRate()  # type: ignore[no-untyped-call]
    whose = whole.optimal_mapping(truth, heard, uem=scored)
    return {
        "group": case.group,
        "id": case.conversation.id,
        "audio_s": round(case.scored_s[1] - case.scored_s[0], 2),
        "speech_s": round(parts["total"], 3),
        "missed_s": round(parts["missed detection"], 3),
        "false_s": round(parts["false alarm"], 3),
        "confused_s": round(parts["confusion"], 3),
        "collar_speech_s": round(tolerant["total"], 3),
        "collar_wrong_s": round(
            tolerant["missed detection"] + tolerant["false alarm"] + tolerant["confusion"], 3
        ),
        "jer_percent": round(100 * jaccard(truth, heard, uem=scored), 2),
        "speakers": case.conversation.speakers,
        "speakers_told": len({turn.speaker for turn in told.turns}),
        "switches": _switches(case.conversation.turns, told.turns),
        "known_after_s": known_after(case.conversation.turns, told.first_told, whose),
        "new_known_after_s": known_after(
            _first_turns(case.conversation.turns), told.first_told, whose
        ),
        "cpu_s": round(told.cpu_s, 2),
    }


def known_after(
    turns: Sequence[SpokenBy],
    first_told: Sequence[tuple[float, SpokenBy]],
    whose: Mapping[str, str],
) -> list[float]:
    """How long after their start turns were first ascribed to whom they belong, in seconds.

    Args:
        turns: The truth; those that are never ascribed rightly are left out, as errors count them.
        first_told: What was said, and how much audio there was.
        whose: Who somebody told apart is.

    """
    found = []
    for turn in turns:
        if turn.end_s - turn.start_s < _LONG_TURN_S:
            continue
        known = [
            at_s
            for at_s, said in first_told
            if whose.get(said.speaker) == turn.speaker
            and min(said.end_s, turn.end_s) - max(said.start_s, turn.start_s) > 0.05
        ]
        if known:
            found.append(round(min(known) - turn.start_s, 3))
    return found


def _first_turns(turns: Sequence[SpokenBy]) -> list[SpokenBy]:
    first: dict[str, SpokenBy] = {}
    for turn in turns:
        first.setdefault(turn.speaker, turn)
    return list(first.values())


def _switches(truth: Sequence[SpokenBy], told: Sequence[SpokenBy]) -> int:
    """How often somebody is another one than in their turn before."""
    before: dict[str, str] = {}
    switches = 0
    for turn in truth:
        shares: dict[str, float] = {}
        for said in told:
            common = min(said.end_s, turn.end_s) - max(said.start_s, turn.start_s)
            if common > 0:
                shares[said.speaker] = shares.get(said.speaker, 0.0) + common
        if turn.end_s - turn.start_s < _LONG_TURN_S or not shares:
            continue
        now = max(shares, key=lambda speaker: shares[speaker])
        switches += before.get(turn.speaker, now) != now
        before[turn.speaker] = now
    return switches


def _by_group(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups = dict.fromkeys(row["group"] for row in rows)
    return [[row for row in rows if row["group"] == group] for group in groups]


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All conversations of a group as one."""

    def total(name: str) -> float:
        return float(sum(row[name] for row in rows))

    def percent(name: str) -> float:
        return round(100 * total(name) / total("speech_s"), 1)

    return {
        "group": rows[0]["group"],
        "conversations": len(rows),
        "der_percent": round(percent("missed_s") + percent("false_s") + percent("confused_s"), 1),
        "missed_percent": percent("missed_s"),
        "false_percent": percent("false_s"),
        "confused_percent": percent("confused_s"),
        "der_collar_percent": round(100 * total("collar_wrong_s") / total("collar_speech_s"), 1),
        "jer_percent": round(total("jer_percent") / len(rows), 1),
        "right_number": sum(row["speakers"] == row["speakers_told"] for row in rows),
        "switches": int(total("switches")),
        "known_after_s": quantiles([s for row in rows for s in row["known_after_s"]]),
        "new_known_after_s": quantiles([s for row in rows for s in row["new_known_after_s"]]),
        "cpu_s_per_audio_s": round(total("cpu_s") / total("audio_s"), 3),
    }


async def _tell(
    stub: rpc.DiarizerServiceStub, said: Conversation, latency_s: float, process: psutil.Process
) -> Told:
    """Have a conversation told apart."""

    async def requests() -> AsyncIterator[pb.DiarizeRequest]:
        config = pb.DiarizeConfig()
        config.max_latency.FromMilliseconds(round(1000 * latency_s))
        yield pb.DiarizeRequest(open=pb.Open(session_id="bench", config=config))
        for first in range(0, len(said.audio), _MESSAGE_SAMPLES):
            pcm = float_to_pcm(said.audio[first : first + _MESSAGE_SAMPLES])
            yield pb.DiarizeRequest(audio=audio_pb2.AudioFrame(first_sample=first, pcm=pcm))
        yield pb.DiarizeRequest(finish=stage_pb2.Finish())

    decided: list[SpokenBy] = []
    first_told: list[tuple[float, SpokenBy]] = []
    before_s = _cpu_s(process)
    async for response in stub.Diarize(requests(), timeout=20 * len(said.audio) / SAMPLE_RATE_HZ):
        turns = response.turns
        settled_s = seconds(turns.settled_sample)
        for turn in turns.turns:
            told = SpokenBy(seconds(turn.first_sample), seconds(turn.end_sample), str(turn.speaker))
            first_told.append((seconds(turns.through_sample), told))
            if told.start_s < settled_s:
                decided.append(replace(told, end_s=min(told.end_s, settled_s)))
    return Told(tuple(_joined(decided)), tuple(first_told), _cpu_s(process) - before_s)


def _joined(turns: Sequence[SpokenBy]) -> Iterator[SpokenBy]:
    """Turns that go on where they were cut made one."""
    last: dict[str, SpokenBy] = {}
    for turn in turns:
        before = last.get(turn.speaker)
        if before is not None and turn.start_s <= before.end_s:
            last[turn.speaker] = replace(before, end_s=turn.end_s)
            continue
        if before is not None:
            yield before
        last[turn.speaker] = turn
    yield from last.values()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _replica(settings: Sequence[str]) -> Iterator[tuple[str, psutil.Process]]:
    """A replica of the service: where it listens, and its process."""
    with TemporaryDirectory(prefix="vm") as folder:
        address = f"unix:{folder}/diarizer"
        chosen = dict(setting.split("=", 1) for setting in settings)
        environment = os.environ | {"DIARIZER_ADDRESS": address, "DIARIZER_WORKERS": "1"} | chosen
        command = (sys.executable, "-m", "services.diarizer")
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as child:
            try:
                yield address, psutil.Process(child.pid)
            finally:
                child.terminate()


def _recorded(manifest: Path | None) -> Iterator[Case]:
    """Conversations of a manifest; else the telephone call that packages carry, unscored."""
    if manifest is None:
        return
    root = manifest.resolve().parents[1]
    for row in map(json.loads, manifest.read_text().splitlines()):
        fields = (line.split() for line in (root / row["speakers"]).read_text().splitlines())
        turns = sorted(
            (
                SpokenBy(float(field[3]), float(field[3]) + float(field[4]), field[7])
                for field in fields
            ),
            key=lambda turn: turn.start_s,
        )
        audio = decode_audio(str(root / row["path"]))
        group = "telephone" if row["id"] == "sample" else "meeting"
        first_s, end_s = row["scored_region_s"]
        yield Case(group, Conversation(row["id"], audio, tuple(turns)), (first_s, end_s))


def _mixed(manifest: Path | None, seeds: int) -> Iterator[Case]:
    """Conversations made of what single people read."""
    if manifest is None:
        return
    found = recordings(manifest)
    most = len({recording.speaker for recording in found})
    for people in range(2, min(6, most) + 1):
        for seed in range(seeds):
            mixture = conversation(
                found,
                # Not those by which thresholds were chosen, which have seeds below 1000.
                seed=1000 * people + seed,
                speakers=people,
                overlap=(0.0, 0.1, 0.2)[seed % 3],
                length_s=60.0,
            )
            yield Case(f"mixtures of {people}", mixture, (0.0, 60.0))


def _annotation(turns: Sequence[SpokenBy]) -> Annotation:
    found = Annotation()
    for number, turn in enumerate(turns):
        if turn.end_s > turn.start_s:
            found[Segment(turn.start_s, turn.end_s), number] = turn.speaker
    return found


def _draw(pictured: Sequence[tuple[Case, Told]], path: Path) -> None:
    """Truth above, what was decided below, for each conversation; who is who has one colour."""
    figure = Figure(figsize=(13, 1.9 * len(pictured)), layout="constrained")
    figure.suptitle(f"who spoke when, in s: above the truth, below what was told; {hardware()}")
    rows = figure.subplots(len(pictured), 1, squeeze=False)[:, 0]
    for axes, (case, told) in zip(rows, pictured, strict=True):
        truth = case.conversation.turns
        whose = DiarizationErrorRate().optimal_mapping(_annotation(truth), _annotation(told.turns))
        heard = [
            replace(turn, speaker=whose.get(turn.speaker, f"nobody's {turn.speaker}"))
            for turn in told.turns
        ]
        people = list(dict.fromkeys(turn.speaker for turn in (*truth, *heard)))
        for turns, top in ((truth, 1.0), (heard, 0.0)):
            for turn in turns:
                place = people.index(turn.speaker)
                axes.broken_barh(
                    [(turn.start_s, turn.end_s - turn.start_s)],
                    (top + 0.8 * place / len(people), 0.7 / len(people)),
                    facecolors=f"C{place}",
                )
        axes.set_title(case.conversation.id, fontsize=9)
        axes.set_xlim(*case.scored_s)
        axes.set_yticks([0.4, 1.4], ["told", "truth"])
    figure.savefig(path, dpi=100)


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="diarizer-online", help="name or folder")
    parser.add_argument("--conversations", type=Path, help="manifest with RTTM files")
    parser.add_argument("--mixtures", type=Path, help="manifest of what single people read")
    parser.add_argument("--seeds", type=int, default=6, help="mixtures for each number of people")
    parser.add_argument(
        "--latencies", type=float, nargs="+", default=[1.0], help="seconds, 0.2 to 5"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a setting of the service"
    )
    parser.add_argument("--pictures", type=int, default=10, help="conversations in the picture")
    parser.add_argument("--name", default="", help="of the result; default: the model")
    parser.set_defaults(engine="")
    return parser


if __name__ == "__main__":
    chosen = options().parse_args()
    locate(chosen.model)
    asyncio.run(main(chosen))
