"""How good and prompt is live speech translated? ``python -m bench.interpret``; see README.md.

Recordings are played to a mesh at the pace of speech, one after the other, by the client of the
demo. What its captions say in the other language is compared with a translation by people, where
there is one, and with what the same translator makes of the true text.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import tables
from bench.corpus import Clip, recordings
from bench.mesh import Served, served
from bench.report import add_options, environment, quantiles, result_name, write
from bench.score import Tally, compare
from bench.translation import Shown, bleu, chrf, laal_s
from services.cli.live import HeardPiece, HeardWord, Recording, Transcript, converse
from services.common.timeline import SAMPLE_RATE_HZ
from services.translator.config import Settings
from services.translator.engines.choice import load_engine
from services.translator.languages import resolve
from services.translator.translator import Job, Pair


@dataclass(slots=True)
class Watched:
    """What is seen of one recording."""

    shown: Shown = field(default_factory=Shown)
    text: str = ""
    """The transcript."""
    after_word_s: list[float] = field(default_factory=list)
    """From the end of each word to the commit of the translation that covers it."""
    after_commit_s: list[float] = field(default_factory=list)
    """The same from the word's own commit: what the translation adds."""
    committed_s: list[float] = field(default_factory=list)
    """When each word of the translation was committed, from the start of the audio."""


async def watch(mesh: Served, clip: Clip, target: str) -> Watched:
    """Play a recording and watch its translation grow."""
    watched = Watched()
    waiting: list[tuple[HeardWord, float]] = []
    started = time.monotonic()

    def hear(_transcript: Transcript, new: list[HeardWord]) -> None:
        now = time.monotonic()
        waiting.extend((word, now) for word in new)

    def translate(transcript: Transcript, new: list[HeardPiece]) -> None:
        now = time.monotonic()
        watched.shown.see([piece.text for piece in new], transcript.translated_tail)
        for piece in new:
            watched.committed_s += [now - started] * len(piece.text.split())
            while waiting and waiting[0][0].end_s <= piece.end_s + 1e-6:
                word, committed = waiting.pop(0)
                watched.after_commit_s.append(now - committed)
                watched.after_word_s.append(now - committed + word.final_delay_s)

    session = await converse(
        mesh.grpc_target,
        Recording(clip.pcm, SAMPLE_RATE_HZ, 1),
        language=clip.language_code,
        translate_into=target,
        on_captions=hear,
        on_translated=translate,
    )
    watched.text = session.transcript.text
    return watched


async def main(args: argparse.Namespace) -> None:
    """Measure, and write what came out."""
    rows = []
    with served(args.model, environment(args), translator=True) as mesh:
        for manifest in args.manifest:
            for pair in args.pairs:
                row = await _measure(mesh, manifest, pair)
                if row is not None:
                    rows.append(row)
                    print(row)
    write(result_name("interpret", args), args, {"rows": rows})
    tables.update()


async def _measure(mesh: Served, manifest: Path, direction: str) -> dict[str, Any] | None:
    source, target = direction.split(">")
    found = [
        recording
        for recording in recordings(manifest)
        if recording.language_code == source and not recording.low_level
    ]
    if not found:
        return None
    clips = [recording.clip() for recording in found]
    before_s = mesh.cpu_s()
    watched = [await watch(mesh, clip, target) for clip in clips]
    cpu_s = mesh.cpu_s() - before_s
    heard = [
        compare(clip.text, one.text, source).tally for clip, one in zip(clips, watched, strict=True)
    ]
    audio_s = sum(clip.audio_s for clip in clips)
    return {
        "manifest": manifest.parent.name,
        "pair": direction,
        "recordings": len(clips),
        "audio_s": round(audio_s, 1),
        "wer": round(sum(heard, Tally()).wer_percent, 2),
        **(_quality(manifest, direction, clips, watched) if _has_references(manifest) else {}),
        "erased_per_word": round(
            sum(one.shown.erased for one in watched) / sum(len(one.shown.words) for one in watched),
            3,
        ),
        "after_word_s": quantiles([lag for one in watched for lag in one.after_word_s]),
        "after_commit_s": quantiles([lag for one in watched for lag in one.after_commit_s]),
        "cpu_s_per_s": round(cpu_s / audio_s, 3),
    }


def _quality(
    manifest: Path, direction: str, clips: Sequence[Clip], watched: Sequence[Watched]
) -> dict[str, float]:
    """Live speech, and the true text in one go, beside people's translations."""
    source, target = direction.split(">")
    lines = {line["id"]: line for line in _lines(manifest)}
    references = [str(lines[clip.id]["translations"][target]) for clip in clips]
    pair = Pair(resolve(source), resolve(target))
    jobs = [Job(pair, str(lines[clip.id]["text_raw"])) for clip in clips]
    translator, _ = load_engine(Settings())
    texts = [translator.translate([job])[0].text for job in jobs]
    said = [" ".join(one.shown.words) for one in watched]
    lags_s = [
        laal_s(one.committed_s, clip.audio_s, len(reference.split()))
        for one, clip, reference in zip(watched, clips, references, strict=True)
    ]
    return {
        "bleu": bleu(said, references),
        "text_bleu": bleu(texts, references),
        "chrf": chrf(said, references),
        "text_chrf": chrf(texts, references),
        "chrf_of_true_text": chrf(said, texts),
        "laal_s": round(sum(lags_s) / len(lags_s), 2),
    }


def _has_references(manifest: Path) -> bool:
    return all("translations" in line for line in _lines(manifest))


def _lines(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="base")
    parser.add_argument("--manifest", type=Path, nargs="+", required=True)
    parser.add_argument("--pairs", nargs="+", default=["en>pt", "pt>en"])
    asyncio.run(main(parser.parse_args()))
