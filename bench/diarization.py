"""Who spoke when, and how soon is it known? ``python -m bench.diarization``; see README.md.

Conversations are sent to a replica of the diarizer service as fast as it takes them. What it says
of a moment before it calls it decided is compared with the truth; how soon it says it is counted in
audio, for the replica has no clock.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faster_whisper import decode_audio
from matplotlib.figure import Figure
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

from bench import offline_rival, tables
from bench.corpus import recordings
from bench.diarizer_client import Told, replica, tell
from bench.environments import cache_dir
from bench.mixtures import Conversation, SaidWord, SpokenBy, conversation
from bench.report import RESULTS, hardware, quantiles, write
from bench.whose_words import attributed, permuted_errors, wrong_words
from services.common.models import locate

_LONG_TURN_S = 1.0
"""Turns of the truth that are shorter are not asked when they were known."""


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation, where it comes from, and what of it counts."""

    group: str
    conversation: Conversation
    scored_s: tuple[float, float]


async def main(args: argparse.Namespace) -> None:
    """Measure, and write what came out as JSON and as a picture."""
    cases = [*_recorded(args.conversations), *_mixed(args.mixtures, args.seeds)]
    offline = _offline(cases, args.venv) if args.senko else {}
    found, pictured = [], []
    async with replica([f"DIARIZER_MODEL={args.model}", *args.env]) as diarizer:
        for latency_s in args.latencies:
            for case in cases:
                told = await tell(diarizer, case.conversation, latency_s)
                found.append({"latency_s": latency_s, **score(case, told)})
                print(json.dumps(found[-1]))
                if latency_s == args.latencies[0]:
                    pictured.append((case, told))
    name = f"diarization-{args.name or Path(args.model).name}"
    rows = [
        {"latency_s": latency_s, **_together(rows)}
        for latency_s in args.latencies
        for rows in _by_group([row for row in found if row["latency_s"] == latency_s])
    ]
    write(name, args, {"groups": rows, "conversations": found, **offline})
    _draw(pictured[: args.pictures], RESULTS / f"{name}.png")
    tables.update()


def _offline(cases: Sequence[Case], venv: Path | None) -> dict[str, Any]:
    """What senko makes of the same conversations, each as a whole."""
    folder = venv or cache_dir() / f"senko-{offline_rival.VERSION}"
    versions = offline_rival.install(folder)
    found = []
    answers = offline_rival.tell([case.conversation for case in cases], folder)
    for case, answer in zip(cases, answers, strict=True):
        for system, told in answer.items():
            found.append({"system": system, **score(case, told)})
            print(json.dumps(found[-1]))
    rows = [
        {"system": system, **_together(rows)}
        for system in offline_rival.SEGMENTS
        for rows in _by_group([row for row in found if row["system"] == system])
    ]
    return {"offline": rows, "offline_conversations": found, "versions": versions}


def score(case: Case, told: Told) -> dict[str, Any]:
    """Hold what was told against the truth."""
    truth, heard = annotation(case.conversation.turns), annotation(told.turns)
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
        **_words(case.conversation, told),
    }


def _words(said: Conversation, told: Told) -> dict[str, int]:
    """How many words the gateway would ascribe to somebody else."""
    whose = attributed(said.words, told.messages)
    return {
        "words": len(said.words),
        "words_wrong": wrong_words(said.words, whose),
        "words_permuted_errors": permuted_errors(said.words, whose),
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
        "words": int(total("words")),
        "wder_percent": _share(total("words_wrong"), total("words")),
        "cpwer_percent": _share(total("words_permuted_errors"), total("words")),
        "known_after_s": quantiles([s for row in rows for s in row["known_after_s"]]),
        "new_known_after_s": quantiles([s for row in rows for s in row["new_known_after_s"]]),
        "cpu_s_per_audio_s": round(total("cpu_s") / total("audio_s"), 3),
    }


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
        words = said_in((root / row["stm"]).read_text()) if "stm" in row else ()
        yield Case(group, Conversation(row["id"], audio, tuple(turns), words), (first_s, end_s))


def said_in(stm: str) -> tuple[SaidWord, ...]:
    """The words of an STM file, which says when stretches begin and end.

    Within a stretch words are as long as they have letters.
    """
    found: list[SaidWord] = []
    for line in stm.splitlines():
        _, _, speaker, begin, end, text = line.split(maxsplit=5)
        words = text.split()
        letter_s = (float(end) - float(begin)) / sum(map(len, words))
        at_s = float(begin)
        for word in words:
            found.append(SaidWord(word, at_s, at_s + letter_s * len(word), speaker))
            at_s = found[-1].end_s
    return tuple(sorted(found, key=lambda word: word.start_s))


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


def _share(errors: float, words: float) -> float | None:
    """In percent; None: there are no words."""
    return round(100 * errors / words, 1) if words else None


def annotation(turns: Sequence[SpokenBy]) -> Annotation:
    """Turns as pyannote has them."""
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
        whose = DiarizationErrorRate().optimal_mapping(annotation(truth), annotation(told.turns))
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
    parser.add_argument(
        "--senko", action="store_true", help="compare with senko, which hears all at once"
    )
    parser.add_argument("--venv", type=Path, help="environment of senko, made if it is not there")
    parser.add_argument("--pictures", type=int, default=10, help="conversations in the picture")
    parser.add_argument("--name", default="", help="of the result; default: the model")
    parser.set_defaults(engine="")
    return parser


if __name__ == "__main__":
    chosen = options().parse_args()
    locate(chosen.model)
    asyncio.run(main(chosen))
