"""A client of Deepgram's live ``/v1/listen``: plays a clip at its pace, writes down what came when.

Its clock starts with the audio, and a message is sent when its last sample has been spoken.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect

from bench.converse import FRAME_S, Captions, Heard
from bench.corpus import BYTES_PER_S, Clip, TimedWord
from services.common.timeline import SAMPLE_RATE_HZ

_ANSWER_S = 60.0
"""How long a session may take after the end of its audio."""
_NORMAL = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """One ``Results`` message. Times are in seconds of the client's clock, or of audio."""

    at_s: float
    """When it came."""
    sent_s: float
    """How much audio had been sent by then."""
    start_s: float
    end_s: float
    """The audio that it speaks of."""
    transcript: str
    words: tuple[TimedWord, ...]
    final: bool
    from_finalize: bool


@dataclass(slots=True)
class Listened:
    """What one session was told."""

    results: list[Result] = field(default_factory=list)
    finalized_s: list[float] = field(default_factory=list)
    """When each ``Finalize`` was sent."""
    closing_s: float = 0.0
    """When ``CloseStream`` was sent."""
    closed_s: float = 0.0
    """When the gateway had closed the connection."""
    late_s: float = 0.0
    """By how much the client was late with a message, at worst."""

    @property
    def text(self) -> str:
        """What was said for good."""
        return " ".join(result.transcript for result in self.results if result.final)

    @property
    def finalize_delays_s(self) -> list[float]:
        """From each ``Finalize`` to its answer."""
        answered = [result.at_s for result in self.results if result.from_finalize]
        return [at_s - asked_s for asked_s, at_s in zip(self.finalized_s, answered, strict=True)]

    @property
    def close_delay_s(self) -> float:
        """From ``CloseStream`` to the end of the connection."""
        return self.closed_s - self.closing_s

    def heard(self) -> Heard:
        """The same as what a session of ``Converse`` is told: final words, and a tail."""
        captions = [
            Captions(result.at_s, result.words, "")
            if result.final
            else Captions(result.at_s, (), result.transcript)
            for result in self.results
        ]
        return Heard(captions=captions, end_s=self.closing_s, finished_s=self.closed_s)

    def row(self) -> dict[str, Any]:
        """As a ledger keeps it."""
        return {
            "results": [
                [
                    *(result.at_s, result.sent_s, result.start_s, result.end_s, result.transcript),
                    [[word.text, word.start_s, word.end_s] for word in result.words],
                    *(result.final, result.from_finalize),
                ]
                for result in self.results
            ],
            "finalized_s": self.finalized_s,
            "closing_s": self.closing_s,
            "closed_s": self.closed_s,
            "late_s": self.late_s,
        }

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Listened":
        """What ``row`` wrote."""
        results = [
            Result(at_s, sent_s, start_s, end_s, text, tuple(TimedWord(*w) for w in words), *kinds)
            for at_s, sent_s, start_s, end_s, text, words, *kinds in row["results"]
        ]
        return cls(**{**row, "results": results})


async def listen(
    url: str,
    clip: Clip,
    *,
    finalize_at_s: Sequence[float] = (),
    frame_s: float = FRAME_S,
    **query: str,
) -> Listened:
    """Play a clip into a session as if it were spoken now.

    Args:
        url: Of the gateway, such as ``http://127.0.0.1:8000``.
        clip: What is said.
        finalize_at_s: When to send ``Finalize``, in seconds of the clip.
        frame_s: Audio in one message, in seconds.
        query: What else to ask for, besides interim results.

    Raises:
        RuntimeError: The session did not end as it should.
        TimeoutError: It did not end.

    """
    asked = {
        "model": "nova-3",
        "language": clip.language_code,
        "encoding": "linear16",
        "sample_rate": SAMPLE_RATE_HZ,
        "channels": 1,
        "interim_results": "true",
        "smart_format": "true",
        **query,
    }
    session = _Session(clip, finalize_at_s, frame_s)
    async with (
        asyncio.timeout(clip.audio_s + _ANSWER_S),
        connect(
            f"ws{url.removeprefix('http')}/v1/listen?{urlencode(asked)}",
            proxy=None,
            max_size=None,
            compression=None,
        ) as socket,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(session.play(socket), name="bench.send")
        async for message in socket:
            session.take(json.loads(message))
        session.listened.closed_s = session.clock_s()
    if socket.close_code != _NORMAL or not session.complete:
        raise RuntimeError(f"closed with {socket.close_code} {socket.close_reason}")
    return session.listened


class _Session:
    def __init__(self, clip: Clip, finalize_at_s: Sequence[float], frame_s: float) -> None:
        self._clip = clip
        self._finalize_at_s = finalize_at_s
        self._frame_s = frame_s
        self._started_s = 0.0
        self._sent_s = 0.0
        self.complete = False
        """Whether the last message has come."""
        self.listened = Listened()

    def clock_s(self) -> float:
        """Seconds since the audio began."""
        return time.monotonic() - self._started_s

    async def play(self, socket: ClientConnection) -> None:
        """The audio and every ``Finalize`` when they are due, then ``CloseStream``."""
        pcm, size = self._clip.pcm, round(self._frame_s * SAMPLE_RATE_HZ) * 2
        frames = [pcm[first : first + size] for first in range(0, len(pcm), size)]
        due: list[tuple[float, bytes | None]] = [(at_s, None) for at_s in self._finalize_at_s]
        spoken = 0
        for frame in frames:
            spoken += len(frame)
            due.append((spoken / BYTES_PER_S, frame))
        self._started_s = time.monotonic()
        for due_s, frame_or_none in sorted(due, key=lambda row: row[0]):
            await asyncio.sleep(due_s - self.clock_s())
            self.listened.late_s = max(self.listened.late_s, self.clock_s() - due_s)
            if frame_or_none is None:
                self.listened.finalized_s.append(self.clock_s())
                await socket.send('{"type":"Finalize"}')
            else:
                await socket.send(frame_or_none)
                self._sent_s += len(frame_or_none) / BYTES_PER_S
        self.listened.closing_s = self.clock_s()
        await socket.send('{"type":"CloseStream"}')

    def take(self, message: dict[str, Any]) -> None:
        """Take in a message."""
        self.complete = message["type"] == "Metadata"
        if message["type"] != "Results":
            return
        told = message["channel"]["alternatives"][0]
        words = tuple(
            TimedWord(f" {word.get('punctuated_word', word['word'])}", word["start"], word["end"])
            for word in told["words"]
        )
        self.listened.results.append(
            Result(
                self.clock_s(),
                self._sent_s,
                message["start"],
                message["start"] + message["duration"],
                told["transcript"],
                words,
                message["is_final"],
                message["from_finalize"],
            )
        )
