"""A client of ``Converse``: plays a clip at a pace, and writes down what came when.

Its clock starts with the audio, and audio counts as spoken when the clock says so, whether or not
the gateway has taken it yet: a gateway that makes its client wait does not look prompt for it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from bench.corpus import BYTES_PER_S, Clip, TimedWord
from services.common.audio import BYTES_PER_SAMPLE
from services.common.timeline import SAMPLE_RATE_HZ
from voxmesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

FRAME_S = 0.1
"""Audio in one message, in seconds."""
_ANSWER_S = 60.0
"""How long a session may take after twice the time of its audio."""


@dataclass(frozen=True, slots=True)
class Captions:
    """One message about the transcript."""

    at_s: float
    """When it came, in seconds of the client's clock."""
    words: tuple[TimedWord, ...]
    """Final from now on."""
    tail: str


@dataclass(slots=True)
class Heard:
    """What one session was told."""

    pace: float = 1.0
    """Seconds of audio in a second."""
    captions: list[Captions] = field(default_factory=list)
    end_s: float = 0.0
    """When the end of the audio was said, in seconds of the clock."""
    finished_s: float = 0.0
    """When ``finished`` came."""
    late_s: float = 0.0
    """By how much the client itself was late with a message, at worst."""
    held_s: float = 0.0
    """By how much the gateway, taking no more audio, made the client late, at worst."""
    notices: list[str] = field(default_factory=list)
    failure: str = ""
    """Status and message with which the gateway refused or ended it."""
    failed_after_s: float = 0.0
    """How long after the call."""
    _final_at_s: list[float] = field(default_factory=list, repr=False)

    @property
    def words(self) -> list[TimedWord]:
        """The final words, in order."""
        return [word for captions in self.captions for word in captions.words]

    @property
    def text(self) -> str:
        """The final words as text."""
        return "".join(word.text for word in self.words)

    @property
    def refused(self) -> bool:
        """Whether there was no room for it."""
        return self.failure.startswith(grpc.StatusCode.RESOURCE_EXHAUSTED.name)

    def final_at_s(self, word: int) -> float:
        """When a word became final, in seconds of the clock."""
        if not self._final_at_s:
            self._final_at_s = [c.at_s for c in self.captions for _ in c.words]
        return self._final_at_s[word]

    def row(self) -> dict[str, Any]:
        """As a ledger keeps it."""
        return {
            "pace": self.pace,
            "captions": [
                [c.at_s, [[w.text, w.start_s, w.end_s] for w in c.words], c.tail]
                for c in self.captions
            ],
            "end_s": self.end_s,
            "finished_s": self.finished_s,
            "late_s": self.late_s,
            "held_s": self.held_s,
            "notices": self.notices,
            "failure": self.failure,
            "failed_after_s": self.failed_after_s,
        }

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Heard":
        """What ``row`` wrote."""
        captions = [
            Captions(at_s, tuple(TimedWord(*word) for word in words), tail)
            for at_s, words, tail in row["captions"]
        ]
        return cls(**{**row, "captions": captions})


async def converse(
    target: str,
    clip: Clip,
    *,
    pace: float = 1.0,
    frame_s: float = FRAME_S,
    on_sent: Callable[[float], None] = lambda _audio_s: None,
) -> Heard:
    """Play a clip into a session as if it were spoken now.

    Args:
        target: The gateway, as ``host:port``.
        clip: What is said.
        pace: Seconds of audio sent in a second; 1 is that of speech.
        frame_s: Audio in one message, in seconds.
        on_sent: Is told of each message that is sent, in seconds of audio.

    """
    heard = Heard(pace=pace)
    sending = _Sending(clip, heard, frame_s, on_sent)
    called = time.monotonic()
    try:
        async with (
            own_channel(target) as channel,
            asyncio.timeout(2 * clip.audio_s / pace + _ANSWER_S),
        ):
            await channel.channel_ready()  # or the audio begins while it connects
            call = gateway_pb2_grpc.GatewayServiceStub(channel).Converse(sending.requests())
            async for answer in call:
                _take(heard, answer, sending.clock_s())
    except grpc.aio.AioRpcError as error:
        heard.failure = f"{error.code().name}: {error.details()}"
    except TimeoutError:
        heard.failure = "TIMEOUT: the session did not end"
    heard.failed_after_s = time.monotonic() - called if heard.failure else 0.0
    heard.finished_s = sending.clock_s()
    return heard


def own_channel(target: str) -> grpc.aio.Channel:
    """A channel that shares its connection with no other of the process: clients do not either."""
    return grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


def _take(heard: Heard, answer: gateway_pb2.ConverseResponse, at_s: float) -> None:
    match answer.WhichOneof("event"):
        case "captions":
            words = tuple(
                TimedWord(
                    word.text,
                    word.start_offset.ToTimedelta().total_seconds(),
                    word.end_offset.ToTimedelta().total_seconds(),
                )
                for word in answer.captions.words
            )
            heard.captions.append(Captions(at_s, words, answer.captions.tail))
        case "notice":
            heard.notices.append(f"{answer.notice.stage}: {answer.notice.code}")


class _Sending:
    """The requests of one session, and its clock."""

    def __init__(
        self, clip: Clip, heard: Heard, frame_s: float, on_sent: Callable[[float], None]
    ) -> None:
        self._clip = clip
        self._heard = heard
        self._frame_s = frame_s
        self._on_sent = on_sent
        self._started = 0.0

    def clock_s(self) -> float:
        """Seconds since the audio began; 0 before that."""
        return time.monotonic() - self._started if self._started else 0.0

    async def requests(self) -> AsyncIterator[gateway_pb2.ConverseRequest]:
        """``open``, the audio at its pace, ``finish``."""
        clip, heard = self._clip, self._heard
        opening = gateway_pb2.Open(
            encoding=gateway_pb2.ENCODING_LINEAR16, language_code=clip.language_code
        )
        yield gateway_pb2.ConverseRequest(open=opening)
        self._started = time.monotonic()
        size = round(self._frame_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE
        for first in range(0, len(clip.pcm), size):
            frame = clip.pcm[first : first + size]
            # A frame can be sent when its last sample has been spoken.
            due_s = (first + len(frame)) / BYTES_PER_S / heard.pace
            free_s = self.clock_s()
            await asyncio.sleep(due_s - free_s)
            heard.held_s = max(heard.held_s, free_s - due_s)
            heard.late_s = max(heard.late_s, self.clock_s() - max(due_s, free_s))
            self._on_sent(len(frame) / BYTES_PER_S)
            yield gateway_pb2.ConverseRequest(audio=frame)
        heard.end_s = self.clock_s()
        yield gateway_pb2.ConverseRequest(finish=gateway_pb2.Finish())
