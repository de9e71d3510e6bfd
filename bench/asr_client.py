"""A client of ``WS /asr``: plays audio at a pace, rebuilds the lines, counts what it is sent."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from services.common.audio import BYTES_PER_SAMPLE
from services.common.timeline import SAMPLE_RATE_HZ

MESSAGE_S = 0.1
_READY_TO_STOP_S = 60.0


@dataclass(slots=True)
class Watched:
    """What one session showed."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    messages: int = 0
    received_bytes: int = 0
    started_s: float = 0.0
    """``time.monotonic()`` when the first sample was spoken: samples are sent once spoken."""
    ended_s: float = 0.0
    """``time.monotonic()`` when all audio and the end had been sent."""
    late_s: float = 0.0
    """By how much a message was sent later than it could have been, at worst."""
    end_to_ready_s: float = 0.0
    """From the end of the audio to ``ready_to_stop``."""

    @property
    def text(self) -> str:
        """The lines, without silences."""
        return " ".join(line["text"].strip() for line in self.lines if line["speaker"] != -2)

    def apply(self, update: dict[str, Any]) -> None:
        """Rebuild the lines by the rule that holds also when the last line grows."""
        if update["type"] == "snapshot":
            self.lines = update["lines"]
            return
        new = update.get("new_lines", [])
        kept = self.lines[update.get("lines_pruned", 0) :][: update["n_lines"] - len(new)]
        self.lines = [*kept, *new]


async def play(
    url: str,
    pcm: bytes,
    *,
    language_code: str,
    speed: float = 1.0,
    mode: str = "diff",
    frame_s: float = MESSAGE_S,
    on_message: Callable[[float, str], None] = lambda _sent_s, _message: None,
) -> Watched:
    """Play s16le 16 kHz mono audio through a session.

    Args:
        url: Such as ``ws://127.0.0.1:8000/asr``.
        pcm: The audio.
        language_code: Its language, or ``auto``.
        speed: 1 is the pace of speech.
        mode: ``diff`` or ``full``.
        frame_s: Audio in one message, in seconds.
        on_message: Is given each message, after the seconds of audio that had been sent by then.

    """
    watched = Watched()
    async with (
        connect(
            f"{url}?language={language_code}&mode={mode}", max_size=None, compression=None
        ) as socket,
        asyncio.TaskGroup() as tasks,
    ):
        progress = _Progress()
        tasks.create_task(_send(socket, pcm, speed, frame_s, progress), name="bench.send")
        async with asyncio.timeout(len(pcm) / 32_000 / speed * 10 + _READY_TO_STOP_S):
            async for message in socket:
                on_message(progress.sent_s, str(message))
                if _take(watched, str(message), mode):
                    break
        watched.started_s, watched.ended_s = progress.started_s, progress.ended_s
        watched.late_s = progress.late_s
        watched.end_to_ready_s = time.monotonic() - progress.ended_s
    return watched


@dataclass(slots=True)
class _Progress:
    sent_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    late_s: float = 0.0


def _take(watched: Watched, message: str, mode: str) -> bool:
    """Take in a message; whether it was the last."""
    watched.messages += 1
    watched.received_bytes += len(message.encode())
    update = json.loads(message)
    match update.get("type"):
        case "ready_to_stop":
            return True
        case "snapshot" | "diff":
            watched.apply(update)
        case None if mode == "full" and "lines" in update:
            watched.lines = update["lines"]
    return False


async def _send(
    socket: ClientConnection, pcm: bytes, speed: float, frame_s: float, progress: _Progress
) -> None:
    size = round(frame_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE
    progress.started_s = started = time.monotonic()
    for index, start in enumerate(range(0, len(pcm), size)):
        due = started + (index + 1) * frame_s / speed
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        progress.late_s = max(progress.late_s, time.monotonic() - due)
        await socket.send(pcm[start : start + size])
        progress.sent_s = (start + size) / 32_000
    await socket.send(b"")
    progress.ended_s = time.monotonic()
