"""So many clients at once: each plays one clip after the other, and begins with another one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.corpus import Clip
from bench.ledger import Ledger
from bench.mesh import Meter, Sample, Served

_STAGGER_S = 1.618
"""Between the first words of two clients. Recognisers step at fractions of a second, and multiples
of the golden ratio fall evenly among those."""

Player = Callable[[Clip, Meter], Awaitable[Any]]
"""Plays a clip and says what came of it, as plain JSON."""


@dataclass(frozen=True, slots=True)
class Play:
    """One clip that one client plays."""

    client: int
    turn: int
    clip: Clip

    @property
    def key(self) -> str:
        """Names it in a ledger."""
        return f"{self.client}/{self.turn}/{self.clip.id}"


def plan(clips: Sequence[Clip], clients: int, turns: int = 0) -> list[list[Play]]:
    """What each client plays, in order.

    So many clients speak at once from the first word to about the last, whatever the clips' number.

    Args:
        clips: Client i begins with the i-th, and goes round.
        clients: How many there are.
        turns: Clips for each client; 0: all of them.

    """
    return [
        [
            Play(client, turn, clips[(client + turn) % len(clips)])
            for turn in range(turns or len(clips))
        ]
        for client in range(clients)
    ]


def share_out(clips: Sequence[Clip], clients: int) -> list[list[Play]]:
    """What each client plays, in order, so that each clip is played once."""
    return [
        [Play(client, turn, clip) for turn, clip in enumerate(clips[client::clients])]
        for client in range(clients)
    ]


async def drive(
    mesh: Served, plays: Sequence[Sequence[Play]], player: Player, ledger: Ledger, prefix: str
) -> list[tuple[Clip, Any]]:
    """Let all clients play what the ledger does not have, and return what it has then.

    Args:
        mesh: What they talk to.
        plays: Of each client.
        player: Plays one clip.
        ledger: Gets what comes of each, and what the mesh used (see ``samples``).
        prefix: Of the keys in the ledger.

    """
    meter = Meter(mesh)

    async def client(number: int, own: Sequence[Play]) -> None:
        await asyncio.sleep(number * _STAGGER_S)
        for play in own:
            if (key := f"{prefix}/play/{play.key}") not in ledger:
                ledger.add(key, await player(play.clip, meter))

    async def measure() -> None:
        while True:
            keep(await meter.next_sample())

    def keep(sample: Sample) -> None:
        number = len(ledger.under(f"{prefix}/sample/"))
        ledger.add(f"{prefix}/sample/{number}", sample.row())

    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(client(number, own), name=f"bench.client.{number}")
            for number, own in enumerate(plays)
        ]
        measuring = tasks.create_task(measure(), name="bench.measure")
        await asyncio.wait(running)
        measuring.cancel()
    keep(meter.read())
    return [(play.clip, ledger[f"{prefix}/play/{play.key}"]) for own in plays for play in own]


def samples(ledger: Ledger, prefix: str) -> list[Sample]:
    """What the mesh used while the clients of ``drive`` played, oldest first."""
    return [Sample(**row) for row in ledger.under(f"{prefix}/sample/")]


def cpu_per_audio(used: Sequence[Sample]) -> float | None:
    """CPU seconds for each second of audio; None: no audio was sent."""
    audio_s = sum(sample.audio_s for sample in used)
    return sum(sample.cpu_s for sample in used) / audio_s if audio_s else None
