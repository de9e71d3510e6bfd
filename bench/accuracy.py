"""How accurate is live? ``python -m bench.accuracy``; see README.md.

The same recordings and the same weights: faster-whisper called as a library, an upload, and live
sessions at the pace of speech. And what is heard where nobody speaks.
"""

import argparse
import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import tables, ways
from bench.corpus import Recording, recordings
from bench.delays import word_end_errors
from bench.fleet import cpu_per_audio, plan, samples, share_out
from bench.ledger import Ledger
from bench.mesh import Served, served
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
from bench.score import Tally, compare
from bench.ways import Transcribed


def score(
    way: str, played: Iterable[Transcribed], said: Mapping[str, Recording], cpu: float | None = None
) -> dict[str, Any]:
    """One way as results are written.

    Args:
        way: Its name.
        played: What came of the recordings, each of them once or more.
        said: The recordings by id.
        cpu: CPU seconds of the mesh for a second of audio.

    """
    by_recording: dict[str, Tally] = {}
    by_language: dict[str, Tally] = {}
    differences: dict[str, list[str]] = {}
    errors: list[float] = []
    for result in played:
        recording = said[result.id]
        compared = compare(recording.text, result.text, recording.language_code)
        for tallies, key in ((by_recording, result.id), (by_language, recording.language_code)):
            tallies[key] = tallies.get(key, Tally()) + compared.tally
        differences.setdefault(result.id, []).extend(compared.differences)
        errors += word_end_errors(recording.words, result.words, recording.language_code)
    return {
        "way": way,
        **sum(by_recording.values(), start=Tally()).row(),
        "by_language": {code: tally.row() for code, tally in sorted(by_language.items())},
        "by_recording": {
            name: round(tally.wer_percent, 1) for name, tally in sorted(by_recording.items())
        },
        "word_end_error_s": quantiles(errors, (50, 95)),
        "words_timed": len(errors),
        "cpu_s_per_audio_s": None if cpu is None else round(cpu, 3),
        "differences": differences,
    }


def score_silence(played: Iterable[Transcribed], clips: Sequence[Recording]) -> dict[str, Any]:
    """What was heard where nobody speaks, by the kind of sound."""
    heard = {result.id: result.text.split() for result in played}
    found = {}
    for kind, music in (("noise", False), ("music", True)):
        own = [clip for clip in clips if clip.label.startswith("music") == music]
        audio_s = sum(clip.clip().audio_s for clip in own)
        words = sum(len(heard[clip.id]) for clip in own)
        found[kind] = {
            "clips": len(own),
            "audio_s": round(audio_s, 1),
            "words": words,
            "words_per_minute": round(60 * words / audio_s, 2) if own else None,
            "heard": {clip.id: " ".join(heard[clip.id]) for clip in own if heard[clip.id]},
        }
    return found


async def transcribe(
    mesh: Served, args: argparse.Namespace, corpus: Sequence[Recording], ledger: Ledger
) -> list[dict[str, Any]]:
    """Every way through the mesh."""
    said = {recording.id: recording for recording in corpus}
    clips = [recording.clip() for recording in corpus]
    found = [
        score(
            "POST /v1/audio/transcriptions",
            await ways.uploaded(mesh, corpus, ledger, "rest"),
            said,
            cpu_per_audio(samples(ledger, "rest")),
        )
    ]
    live = (("WS /asr", ways.over_websocket), ("gRPC Converse", ways.over_grpc))
    for name, over in live:
        for sessions in args.at_once:
            prefix = f"{name}/{sessions}"
            played = await over(mesh, plan(clips, sessions), ledger, prefix)
            cpu = cpu_per_audio(samples(ledger, prefix))
            found.append(score(f"{name}, {sessions} at once", played, said, cpu))
    return found


async def main(args: argparse.Namespace) -> None:
    """Measure every way, and write what came out."""
    name = result_name("accuracy", args)
    ledger = open_ledger(name, args)
    audible = [recording for recording in corpus(args) if not recording.low_level]
    said = {recording.id: recording for recording in audible}
    found = [score("faster-whisper", ways.direct(args.model, audible, ledger), said)]
    silence: dict[str, Any] = {}
    with served(args.model, environment(args)) as mesh:
        found += await transcribe(mesh, args, audible, ledger)
        if args.noise:
            clips = [_in_english(clip) for clip in recordings(args.noise)]
            silence = await listen(mesh, clips, ledger)
    for row in found:
        print(json.dumps({key: row[key] for key in row if key != "differences"}))
    print(json.dumps(silence))
    write(name, args, {"recordings": list(said), "ways": found, "nobody_speaks": silence})
    ledger.close()
    tables.update()


async def listen(mesh: Served, clips: list[Recording], ledger: Ledger) -> dict[str, Any]:
    """Play what has no words in it, live and as uploads."""
    uploaded = await ways.uploaded(mesh, clips, ledger, "noise, rest")
    live = await ways.over_websocket(
        mesh, share_out([clip.clip() for clip in clips], 2), ledger, "noise, live"
    )
    return {
        "POST /v1/audio/transcriptions": score_silence(uploaded, clips),
        "WS /asr": score_silence(live, clips),
    }


def _in_english(clip: Recording) -> Recording:
    """The same, said to be English: no language is to be found in it."""
    return Recording(clip.id, clip.path, clip.text, "en", label=clip.label)


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="base")
    add_manifests(parser)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1], help="live sessions at once")
    parser.add_argument("--noise", type=Path, help="manifest of recordings without speech")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
