"""Is a word lost, or said twice, where speech pauses? ``python -m bench.pauses``; see README.md.

Utterances of a speaker are joined with pauses of many lengths, of zeros and of low noise, and
played live; and once without pauses. What is lost or added around a pause, and is not lost or added
at the same place without it, is the pause's doing.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from bench import tables, ways
from bench.corpus import Clip, Recording, join, recordings
from bench.fleet import share_out
from bench.mesh import served
from bench.report import add_options, environment, open_ledger, result_name, write
from bench.score import Step, Tally, align, compare, normalize

PAUSES_S = (0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_NOISE_RMS = 0.001
"""-60 dBFS: a quiet room."""
_NEAR = 4
"""So many words on each side are around a pause."""


@dataclass(frozen=True, slots=True)
class Case:
    """One speaker's utterances, and the pauses between them."""

    id: str
    kind: str
    utterances: tuple[Clip, ...]
    pauses_s: tuple[float, ...]
    """Behind each utterance but the last."""

    def clip(self) -> Clip:
        """All of it. A second of zeros ends it, as recordings end."""
        noise_rms = _NOISE_RMS if self.kind == "noise" else 0.0
        return join(self.id, self.utterances, [*self.pauses_s, 1.0], noise_rms=noise_rms)


def cases(corpus: Iterable[Recording]) -> list[Case]:
    """For each speaker: without pauses, with pauses of zeros, and with pauses of noise.

    Each speaker's pauses begin with another length, and those of noise with another than zeros do,
    so that every length meets many places.
    """
    found = []
    for number, (speaker, own) in enumerate(groupby(corpus, lambda recording: recording.speaker)):
        utterances = tuple(recording.clip() for recording in own)
        for offset, kind in enumerate(("none", "zeros", "noise")):
            lengths = [
                PAUSES_S[(place + 2 * number + 3 * offset) % len(PAUSES_S)]
                for place in range(len(utterances) - 1)
            ]
            pauses_s = tuple(0.0 for _ in lengths) if kind == "none" else tuple(lengths)
            found.append(Case(f"{speaker}-{kind}", kind, utterances, pauses_s))
    return found


@dataclass(frozen=True, slots=True)
class Around:
    """What is wrong with the words around one pause."""

    lost: Counter[str]
    added: Counter[str]

    def __sub__(self, other: "Around") -> "Around":
        return Around(self.lost - other.lost, self.added - other.added)


def around(utterances: Sequence[Sequence[str]], text: Sequence[str]) -> list[Around]:
    """What is lost and added where one utterance follows another, in order.

    A misheard run may have a word more or less than what was said (his father: he is followed).

    Args:
        utterances: The words of each, normalised.
        text: The words heard, normalised.

    """
    said = [word for utterance in utterances for word in utterance]
    places = list(accumulate(len(utterance) for utterance in utterances))[:-1]
    found = [Around(Counter(), Counter()) for _ in places]
    for step in _without_misheard(align(said, text)):
        for place, pause in zip(places, found, strict=True):
            near = range(place - _NEAR, place + _NEAR)
            if step.kind == "delete":
                pause.lost.update(said[index] for index in step.reference if index in near)
            elif step.kind == "insert" and step.reference.start in range(near.start, near.stop + 1):
                pause.added.update(text[index] for index in step.text)
    return found


def _without_misheard(steps: Iterable[Step]) -> Iterator[Step]:
    """The deletions and insertions that are not of a word that is part of a misheard run."""
    for _, group in groupby(steps, lambda step: step.kind == "equal"):
        run = list(group)
        more = abs(sum(len(step.reference) - len(step.text) for step in run))
        if more > 1 or len(run) == 1:
            yield from run


def judge(case: Case, text: str, plain_text: str) -> list[dict[str, Any]]:
    """What each pause of a case did, given what was heard with and without pauses."""
    code = case.utterances[0].language_code
    said = [normalize(utterance.text, code) for utterance in case.utterances]
    found = zip(
        around(said, normalize(text, code)), around(said, normalize(plain_text, code)), strict=True
    )
    return [
        {
            "case": case.id,
            "after": utterance.id,
            "kind": case.kind,
            "pause_s": pause_s,
            "lost": sorted((paused - plain).lost.elements()),
            "added": sorted((paused - plain).added.elements()),
        }
        for (paused, plain), pause_s, utterance in zip(
            found, case.pauses_s, case.utterances, strict=False
        )
    ]


def summarise(pauses: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What pauses of each kind and length did."""
    found = []
    for kind in ("zeros", "noise"):
        for pause_s in PAUSES_S:
            own = [p for p in pauses if p["kind"] == kind and p["pause_s"] == pause_s]
            row = {"kind": kind, "pause_s": pause_s, "pauses": len(own)}
            lost = sum(len(pause["lost"]) for pause in own)
            found.append({**row, "lost": lost, "added": sum(len(p["added"]) for p in own)})
    return found


async def main(args: argparse.Namespace) -> None:
    """Play all cases, and write what came out."""
    name = result_name("pauses", args)
    ledger = open_ledger(name, args)
    spoken = [r for r in recordings(args.manifest) if not args.speaker or r.speaker in args.speaker]
    every = cases(spoken)
    with served(args.model, environment(args)) as mesh:
        heard = await ways.over_websocket(
            mesh, share_out([case.clip() for case in every], args.at_once), ledger, "live"
        )
    texts = {result.id: result.text for result in heard}
    pauses = []
    tallies = dict.fromkeys(("none", "zeros", "noise"), Tally())
    for case in every:
        clip = case.clip()
        tallies[case.kind] += compare(clip.text, texts[case.id], clip.language_code).tally
        if case.kind != "none":
            plain = f"{case.id.removesuffix(case.kind)}none"
            pauses += judge(case, texts[case.id], texts[plain])
    found = {
        "at_once": args.at_once,
        "by_length": summarise(pauses),
        "whole_texts": {kind: tally.row() for kind, tally in tallies.items()},
        "changed": [pause for pause in pauses if pause["lost"] or pause["added"]],
    }
    print(json.dumps(found, indent=2))
    write(name, args, found)
    ledger.close()
    tables.update()


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="base")
    parser.add_argument(
        "--manifest", type=Path, required=True, help="utterances, those of a speaker in a row"
    )
    parser.add_argument("--speaker", nargs="+", help="only these; default: all")
    parser.add_argument("--at-once", type=int, default=2, help="sessions at once")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
