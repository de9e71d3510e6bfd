"""The ways to have a recording transcribed, offline and live, with the same weights."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from faster_whisper import WhisperModel

from bench import asr_client
from bench.converse import Heard, converse
from bench.corpus import Clip, Recording, TimedWord
from bench.fleet import Play, drive
from bench.ledger import Ledger
from bench.mesh import Meter, Served
from services.common.models import locate

_UPLOAD_S = 600.0


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What came of a recording."""

    id: str
    text: str
    words: tuple[TimedWord, ...] = ()
    """Empty: this way does not say when words were said."""

    def row(self) -> dict[str, Any]:
        """As a ledger keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Transcribed":
        """What ``row`` wrote."""
        return cls(row["id"], row["text"], tuple(TimedWord(**word) for word in row["words"]))


def direct(model: str, corpus: Iterable[Recording], ledger: Ledger) -> list[Transcribed]:
    """faster-whisper as a library, greedy; times of words from a second reading.

    With word times the library chooses its windows differently, and reads otherwise than without.
    """
    whisper: WhisperModel | None = None
    found = []
    for recording in corpus:
        if (key := f"direct/{recording.id}") not in ledger:
            whisper = whisper or WhisperModel(str(locate(model)), device="cpu", compute_type="int8")
            ledger.add(key, _read_directly(whisper, recording).row())
        found.append(Transcribed.of(ledger[key]))
    return found


def _read_directly(whisper: WhisperModel, recording: Recording) -> Transcribed:
    path, language = str(recording.path), recording.language_code
    segments, _ = whisper.transcribe(path, language=language, beam_size=1)
    text = "".join(segment.text for segment in segments)
    timed, _ = whisper.transcribe(path, language=language, beam_size=1, word_timestamps=True)
    words = [word for segment in timed for word in segment.words]
    return Transcribed(
        recording.id, text, tuple(TimedWord(word.word, word.start, word.end) for word in words)
    )


async def uploaded(
    mesh: Served, corpus: Iterable[Recording], ledger: Ledger, prefix: str
) -> list[Transcribed]:
    """``POST /v1/audio/transcriptions``, one file after the other."""
    found = []
    meter = Meter(mesh)
    async with httpx.AsyncClient(timeout=_UPLOAD_S, trust_env=False) as client:
        for recording in corpus:
            if (key := f"{prefix}/play/{recording.id}") not in ledger:
                meter.read()
                ledger.add(key, (await upload(mesh, client, recording)).row())
                meter.sent(recording.clip().audio_s)
                ledger.add(f"{prefix}/sample/{recording.id}", meter.read().row())
            found.append(Transcribed.of(ledger[key]))
    return found


async def upload(mesh: Served, client: httpx.AsyncClient, recording: Recording) -> Transcribed:
    """One file to ``POST /v1/audio/transcriptions``.

    Raises:
        httpx.HTTPError: It was refused, or not answered.

    """
    content = await asyncio.to_thread(recording.path.read_bytes)
    answer = await client.post(
        f"{mesh.url}/v1/audio/transcriptions",
        files={"file": (recording.path.name, content)},
        data={
            "language": recording.language_code,
            "model": "whisper-1",
            "response_format": "verbose_json",
            "timestamp_granularities[]": "word",
        },
    )
    body = answer.raise_for_status().json()
    words = tuple(TimedWord(word["word"], word["start"], word["end"]) for word in body["words"])
    return Transcribed(recording.id, body["text"], words)


async def over_websocket(
    mesh: Served, plays: Sequence[Sequence[Play]], ledger: Ledger, prefix: str
) -> list[Transcribed]:
    """``WS /asr`` at the pace of speech, as many sessions at once as there are clients."""

    async def play(clip: Clip, meter: Meter) -> dict[str, Any]:
        watched = await asr_client.play(mesh.ws_url, clip.pcm, language_code=clip.language_code)
        meter.sent(clip.audio_s)
        return Transcribed(clip.id, watched.text).row()

    played = await drive(mesh, plays, play, ledger, prefix)
    return [Transcribed.of(row) for _, row in played]


async def over_grpc(
    mesh: Served, plays: Sequence[Sequence[Play]], ledger: Ledger, prefix: str
) -> list[Transcribed]:
    """``Converse`` at the pace of speech, as many sessions at once as there are clients.

    Raises:
        RuntimeError: A session was refused, or failed.

    """

    async def play(clip: Clip, meter: Meter) -> dict[str, Any]:
        heard = await converse(mesh.grpc_target, clip, on_sent=meter.sent)
        if heard.failure:
            raise RuntimeError(f"{clip.id}: {heard.failure}")
        return heard.row()

    played = await drive(mesh, plays, play, ledger, prefix)
    return [
        Transcribed(clip.id, heard.text, tuple(heard.words))
        for clip, heard in ((clip, Heard.of(row)) for clip, row in played)
    ]
