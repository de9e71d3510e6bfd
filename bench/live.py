"""How accurate is live, and how prompt? ``python -m bench.live``; see README.md.

Three ways for the same recordings and the same weights, one after the other: faster-whisper called
directly, ``POST /v1/audio/transcriptions``, and ``WS /asr`` at the pace of speech.
"""

import argparse
import asyncio
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import jiwer
import psutil
from faster_whisper import WhisperModel
from whisper_normalizer.english import EnglishTextNormalizer

from bench import asr_client
from bench.corpus import Recording, recordings, two_cities
from bench.mesh import Served, served
from services.common.audio import float_to_pcm
from services.common.models import locate

RESULTS = Path(__file__).parent / "results"
_normalize = EnglishTextNormalizer()


@dataclass(frozen=True, slots=True)
class Score:
    """One way of transcribing all recordings."""

    way: str
    wer_percent: float
    wer_percent_by_recording: dict[str, float]
    substitutions: int
    deletions: int
    insertions: int
    audio_s: float
    took_s: float
    """All recordings; live ones overlap."""
    mesh_cpu_s_per_audio_s: float | None
    end_to_ready_s: list[float] | None
    """Live: from the end of the audio to the last word being final."""


def score(
    way: str,
    corpus: Sequence[Recording],
    texts: Sequence[str],
    *,
    audio_s: float,
    took_s: float,
    cpu_s: float | None = None,
    end_to_ready_s: list[float] | None = None,
) -> Score:
    """Compare texts with the references, both normalised as Whisper's authors do for English."""
    references = [_normalize(recording.text) for recording in corpus]
    hypotheses = [_normalize(text) for text in texts]
    total = jiwer.process_words(references, hypotheses)
    each = {
        recording.id: round(100 * jiwer.wer(reference, hypothesis), 1)
        for recording, reference, hypothesis in zip(corpus, references, hypotheses, strict=True)
    }
    return Score(
        way=way,
        wer_percent=round(100 * total.wer, 2),
        wer_percent_by_recording=each,
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
        audio_s=round(audio_s, 1),
        took_s=round(took_s, 1),
        mesh_cpu_s_per_audio_s=None if cpu_s is None else round(cpu_s / audio_s, 3),
        end_to_ready_s=end_to_ready_s,
    )


def direct(model: str, corpus: Sequence[Recording], audio_s: float) -> Score:
    """faster-whisper, greedy, as a library call."""
    whisper = WhisperModel(str(locate(model)), device="cpu", compute_type="int8")
    started = time.monotonic()
    texts = []
    for recording in corpus:
        segments, _ = whisper.transcribe(
            str(recording.path), language=recording.language_code, beam_size=1
        )
        texts.append("".join(segment.text for segment in segments))
    took_s = time.monotonic() - started
    return score("faster-whisper", corpus, texts, audio_s=audio_s, took_s=took_s)


async def uploaded(mesh: Served, corpus: Sequence[Recording], audio_s: float) -> Score:
    """Each file through the REST API."""
    started, cpu_s = time.monotonic(), cpu_seconds(mesh.process)
    texts = []
    async with httpx.AsyncClient(timeout=600) as client:
        for recording in corpus:
            answer = await client.post(
                f"{mesh.url}/v1/audio/transcriptions",
                files={"file": (recording.path.name, recording.path.read_bytes())},
                data={"language": recording.language_code, "model": "whisper-1"},
            )
            texts.append(answer.raise_for_status().json()["text"])
    took_s, cpu_s = time.monotonic() - started, cpu_seconds(mesh.process) - cpu_s
    return score("rest", corpus, texts, audio_s=audio_s, took_s=took_s, cpu_s=cpu_s)


async def live(mesh: Served, corpus: Sequence[Recording], audio_s: float, at_once: int) -> Score:
    """Each recording through ``/asr`` at the pace of speech, so many at once."""
    room = asyncio.Semaphore(at_once)

    async def watch(recording: Recording) -> asr_client.Watched:
        async with room:
            return await asr_client.play(
                f"ws{mesh.url.removeprefix('http')}/asr",
                float_to_pcm(recording.samples()),
                language_code=recording.language_code,
            )

    started, cpu_s = time.monotonic(), cpu_seconds(mesh.process)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(watch(recording), name=recording.id) for recording in corpus]
    took_s, cpu_s = time.monotonic() - started, cpu_seconds(mesh.process) - cpu_s
    watched = [task.result() for task in running]
    return score(
        f"live, {at_once} at once",
        corpus,
        [session.text for session in watched],
        audio_s=audio_s,
        took_s=took_s,
        cpu_s=cpu_s,
        end_to_ready_s=[round(session.end_to_ready_s, 2) for session in watched],
    )


def cpu_seconds(mesh: psutil.Process) -> float:
    """CPU time that the mesh's processes have used so far, in seconds."""
    times = [process.cpu_times() for process in [mesh, *mesh.children(recursive=True)]]
    return sum(used.user + used.system for used in times)


async def main(args: argparse.Namespace) -> None:
    """Measure the three ways and write what came out."""
    corpus = recordings(args.manifest, args.manifest.parents[1]) if args.manifest else two_cities()
    audio_s = sum(len(recording.samples()) for recording in corpus) / 16_000
    scores = [direct(args.model, corpus, audio_s)]
    with served(args.model) as mesh:
        scores.append(await uploaded(mesh, corpus, audio_s))
        scores += [await live(mesh, corpus, audio_s, at_once) for at_once in args.at_once]
    for row in scores:
        print(json.dumps(asdict(row)))
    RESULTS.mkdir(exist_ok=True)
    report = {
        "measured": datetime.now(UTC).date().isoformat(),
        "hardware": f"{psutil.cpu_count()} cores, {platform.machine()}, no GPU",
        "model": args.model,
        "recordings": args.manifest.name if args.manifest else "two_cities.wav",
        "scores": [asdict(row) for row in scores],
    }
    (RESULTS / f"live-{args.model}.json").write_text(json.dumps(report, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="base")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1], help="live sessions")
    parser.add_argument("--manifest", type=Path, help="recordings; default: two_cities.wav")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
