"""One live session over gRPC: audio out at the pace of speech, captions in, delays measured.

The client of ``voxmesh.gateway.v1.GatewayService/Converse`` that the demo plays with.
"""

import asyncio
import time
import wave
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from services.cli import resuming
from services.common.channel import open_channel
from voxmesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

FRAME_S = 0.1
"""Audio in one message, in seconds."""
_ANSWER_S = 60.0
"""How long the gateway may say nothing after the end of the audio."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Raw audio and what it is."""

    pcm: bytes
    """Little-endian signed 16-bit samples, channels interleaved."""
    sample_rate_hz: int
    channels: int

    @property
    def duration_s(self) -> float:
        """How long it lasts, in seconds."""
        return len(self.pcm) / self._bytes_per_s

    @property
    def _bytes_per_s(self) -> int:
        return 2 * self.channels * self.sample_rate_hz

    def frames(self) -> list[bytes]:
        """The audio in messages of ``FRAME_S``, the last one perhaps shorter."""
        size = round(FRAME_S * self.sample_rate_hz) * 2 * self.channels
        return [self.pcm[start : start + size] for start in range(0, len(self.pcm), size)]


def read_wav(path: Path) -> Recording:
    """Read a WAV file of 16-bit samples.

    Raises:
        ValueError: It is not one.

    """
    try:
        with wave.open(str(path), "rb") as source:
            if source.getsampwidth() != 2:
                raise ValueError(f"{path} has samples of {8 * source.getsampwidth()} bits, not 16")
            if not source.getframerate():
                raise ValueError(f"{path} has no sample rate")
            pcm = source.readframes(source.getnframes())
            return Recording(pcm, source.getframerate(), source.getnchannels())
    # RuntimeError: a chunk that says it is longer than the file.
    except (wave.Error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is not a WAV file of 16-bit samples: {error}") from error


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A committed word and how long after it was spoken it could be read."""

    text: str
    end_s: float
    """When it ends, in seconds of audio."""
    first_delay_s: float
    """From the moment its audio had been sent until it stood anywhere in the captions."""
    final_delay_s: float
    """From the same moment until it was committed."""


@dataclass(frozen=True, slots=True)
class HeardPiece:
    """A committed piece of a translation and how long after its last word it could be read."""

    text: str
    end_s: float
    """When the last word ends that it translates, in seconds of audio."""
    delay_s: float
    """From the moment that word's audio had been sent until the piece was committed."""


@dataclass
class Transcript:
    """What a client knows of a session, and when it came to know it."""

    words: list[HeardWord] = field(default_factory=list)
    tail: str = ""
    pieces: list[HeardPiece] = field(default_factory=list)
    """Of the translation, if one was wanted."""
    translated_tail: str = ""
    updates: int = 0
    _seen: dict[tuple[int, str], float] = field(default_factory=dict)
    """When a word first stood at a place, as ``time.monotonic``."""

    @property
    def text(self) -> str:
        """The committed words."""
        return "".join(word.text for word in self.words)

    def apply(
        self, captions: gateway_pb2.Captions, sent: "SentLog", *, now: float
    ) -> list[HeardWord]:
        """Take in one message, and return the words it committed."""
        self.updates += 1
        new = []
        for word in captions.words:
            end_s = word.end_offset.ToTimedelta().total_seconds()
            place = (len(self.words), _plain(word.text))
            spoken = sent.when(end_s)
            heard = HeardWord(word.text, end_s, self._seen.get(place, now) - spoken, now - spoken)
            self.words.append(heard)
            new.append(heard)
        self.tail = captions.tail
        for place_in_tail, text in enumerate(captions.tail.split()):
            self._seen.setdefault((len(self.words) + place_in_tail, _plain(text)), now)
        return new

    def translate(
        self, translated: gateway_pb2.Translated, sent: "SentLog", *, now: float
    ) -> list[HeardPiece]:
        """Take in what changed in the translation, and return what it committed."""
        new = []
        for piece in translated.pieces:
            end_s = piece.end_offset.ToTimedelta().total_seconds()
            new.append(HeardPiece(piece.text, end_s, now - sent.when(end_s)))
        self.pieces += new
        self.translated_tail = translated.tail
        return new


def _sentence(notice: gateway_pb2.Notice) -> str:
    about = f" into {notice.target_language_code}" if notice.target_language_code else ""
    return f"{notice.stage}{about}: {notice.message}"


def _plain(text: str) -> str:
    """A word as a reader recognises it: without case and punctuation."""
    return "".join(char for char in text.casefold() if char.isalnum())


class SentLog:
    """When which part of the audio had been sent."""

    def __init__(self) -> None:
        self._ends_s: list[float] = []
        self._times: list[float] = []

    def add(self, end_s: float, now: float) -> None:
        """Note that the audio up to a position has been sent."""
        self._ends_s.append(end_s)
        self._times.append(now)

    def when(self, position_s: float) -> float:
        """When the audio before a position had been sent; the last moment, if it never was."""
        found = bisect_left(self._ends_s, position_s)
        return self._times[min(found, len(self._times) - 1)]


@dataclass(frozen=True, slots=True)
class Session:
    """What became of one live session."""

    model: str
    language: str
    transcript: Transcript
    audio_s: float
    wall_s: float
    """From the first audio to ``finished``."""
    finish_s: float
    """From the end of the audio to ``finished``."""
    notices: tuple[str, ...]


async def converse(
    target: str,
    recording: Recording,
    *,
    language: str = "",
    model: str = "",
    translate_into: str = "",
    speed: float = 1.0,
    credentials: grpc.ChannelCredentials | None = None,
    on_captions: Callable[[Transcript, list[HeardWord]], None] = lambda _transcript, _new: None,
    on_translated: Callable[[Transcript, list[HeardPiece]], None] = lambda _transcript, _new: None,
) -> Session:
    """Play a recording into a session as if it were spoken now.

    Args:
        target: The gateway, as ``host:port``.
        recording: What is said.
        language: ISO 639-1 code; empty: the gateway's default.
        model: Empty: the gateway's default.
        translate_into: Language of a translation; empty: none.
        speed: Seconds of audio sent in a second.
        credentials: For a gateway that speaks TLS, such as ``grpc.ssl_channel_credentials()``.
        on_captions: Is told of every change, with the words just committed.
        on_translated: The same of the translation.

    Raises:
        grpc.aio.AioRpcError: The gateway refused the session or ended it.
        TimeoutError: It said nothing any more.

    """
    transcript, sent, notices = Transcript(), SentLog(), []
    opened, detected = gateway_pb2.Opened(), language

    def hear(answer: gateway_pb2.ConverseResponse) -> None:
        nonlocal opened, detected
        match answer.WhichOneof("event"):
            case "opened":
                opened, transcript.tail = answer.opened, ""
            case "captions":
                new = transcript.apply(answer.captions, sent, now=time.monotonic())
                on_captions(transcript, new)
            case "translated":
                pieces = transcript.translate(answer.translated, sent, now=time.monotonic())
                on_translated(transcript, pieces)
            case "language":
                detected = answer.language.language_code
            case "notice":
                notices.append(_sentence(answer.notice))

    opening = gateway_pb2.Open(
        encoding=gateway_pb2.ENCODING_LINEAR16,
        sample_rate_hz=recording.sample_rate_hz,
        channels=recording.channels,
        language_code=language,
        model=model,
        translate_into=gateway_pb2.TranslateInto(
            language_codes=[translate_into] if translate_into else []
        ),
    )
    outbox = resuming.Outbox()
    started = time.monotonic()
    # Longer than the audio takes: a gateway that lags is measured, not cut off.
    deadline = asyncio.timeout(2 * recording.duration_s / speed + _ANSWER_S)
    async with open_channel(target, credentials) as channel, deadline:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        playing = asyncio.create_task(_play(recording, speed, outbox, sent), name="live.play")
        try:
            await resuming.converse(stub, opening, outbox, hear)
        finally:
            playing.cancel()
    now = time.monotonic()
    return Session(
        model=opened.model,
        language=detected,
        transcript=transcript,
        audio_s=recording.duration_s,
        wall_s=now - started,
        finish_s=now - sent.when(recording.duration_s),
        notices=tuple(notices),
    )


async def _play(recording: Recording, speed: float, outbox: resuming.Outbox, sent: SentLog) -> None:
    started = time.monotonic()
    position_s = 0.0
    for frame in recording.frames():
        # A frame can be sent when its last sample has been spoken.
        position_s += len(frame) / len(recording.pcm) * recording.duration_s
        await asyncio.sleep(started + position_s / speed - time.monotonic())
        sent.add(position_s, time.monotonic())
        outbox.add(frame)
    outbox.end()
