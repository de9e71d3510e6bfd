"""A client of ``/asr`` that keeps everything it is sent."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from websockets.asyncio.client import ClientConnection, connect

BYTES_PER_S = 32_000
SILENCE = -2
"""Speaker of a line that is a pause."""

BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
"""What is read in beckett.wav: Samuel Beckett, Worstward Ho (1983)."""

_FRAME_S = 0.1
_ANSWER_S = 60.0
"""How long a session may take after the end of its audio before the test is given up."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """A message, and how much audio had been sent when it came."""

    sent_s: float
    message: Message

    @property
    def is_state(self) -> bool:
        """Whether it shows the transcript, rather than the protocol's beginning or end."""
        return "buffer_transcription" in self.message


@dataclass(slots=True)
class Watched:
    """One session, as its client saw it."""

    received: list[Received] = field(default_factory=list)
    lines: list[Message] = field(default_factory=list)
    """As the client has rebuilt them from the messages."""
    ready_after_s: float = 0.0
    """From the end of the audio to ``ready_to_stop``."""

    @property
    def messages(self) -> list[Message]:
        return [received.message for received in self.received]

    @property
    def states(self) -> list[Received]:
        return [received for received in self.received if received.is_state]

    @property
    def text(self) -> str:
        return " ".join(line["text"] for line in self.lines if line["speaker"] != SILENCE)

    def take(self, received: Received) -> None:
        self.received.append(received)
        message = received.message
        if message.get("type") == "diff":
            new = message.get("new_lines", [])
            kept = self.lines[message.get("lines_pruned", 0) :][: message["n_lines"] - len(new)]
            self.lines = [*kept, *new]
        elif received.is_state:
            self.lines = message["lines"]

    def take_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.take(Received(0.0, message))


def pcm_of(path: Path) -> bytes:
    """A recording as ``/asr`` takes it: s16le, 16 kHz, mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return b"".join(frame.to_ndarray().tobytes() for frame in frames)


def silence(duration_s: float) -> bytes:
    return bytes(round(duration_s * BYTES_PER_S / 2) * 2)


async def watch(
    ws_url: str,
    pcm: bytes,
    *,
    query: str = "language=en&mode=diff",
    speed: float = 4.0,
    then: Sequence[tuple[float, Callable[[], None]]] = (),
) -> Watched:
    """Play audio through a session.

    Args:
        ws_url: Of the mesh.
        pcm: As ``pcm_of`` gives it.
        query: What the address says.
        speed: Seconds of audio sent in a second.
        then: What to do when so many seconds of audio have been sent.

    """
    watched = Watched()
    sent_s = ended = 0.0

    async def send(socket: ClientConnection) -> None:
        nonlocal sent_s, ended
        size = round(_FRAME_S * BYTES_PER_S)
        started, actions = time.monotonic(), list(then)
        for start in range(0, len(pcm), size):
            frame = pcm[start : start + size]
            sent_s = (start + len(frame)) / BYTES_PER_S
            await asyncio.sleep(started + sent_s / speed - time.monotonic())
            await socket.send(frame)
            while actions and actions[0][0] <= sent_s:
                actions.pop(0)[1]()
        await socket.send(b"")
        ended = time.monotonic()

    async with (
        connect(f"{ws_url}/asr?{query}", proxy=None) as socket,
        asyncio.timeout(len(pcm) / BYTES_PER_S / speed + _ANSWER_S),
        asyncio.TaskGroup() as tasks,
    ):
        sending = tasks.create_task(send(socket), name="test.send")
        async for data in socket:
            watched.take(Received(sent_s, json.loads(data)))
            if watched.messages[-1].get("type") == "ready_to_stop":
                break
        await sending
        watched.ready_after_s = time.monotonic() - ended
    return watched
