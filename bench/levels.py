"""So many live sessions at once, at the pace of speech: what they heard, when, and what it cost."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.converse import Heard, converse
from bench.corpus import Clip
from bench.delays import Clockwork
from bench.fleet import cpu_per_audio, drive, plan, samples
from bench.ledger import Ledger
from bench.mesh import Meter, Sample, served
from bench.report import environment, quantiles
from bench.score import Tally, compare


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured with so many sessions at once."""

    sessions: int
    heard: list[tuple[Clip, Heard]]
    used: list[Sample]
    idle_bytes: int
    """Memory of the mesh before the first session."""


async def measure(
    args: argparse.Namespace, clips: Sequence[Clip], *, sessions: int, ledger: Ledger
) -> dict[str, Any]:
    """Play clips into a mesh of its own, and print what came out: the ``summary``.

    Args:
        args: The options of the bench, and ``turns``: clips for each session's client; 0: all.
        clips: See ``plan``.
        sessions: At once.
        ledger: Has what an interrupted run measured.

    """
    prefix = f"{sessions}"
    plays = plan(clips, sessions, args.turns)
    if f"{prefix}/end" not in ledger:
        with served(args.model, environment(args)) as mesh:

            async def play(clip: Clip, meter: Meter) -> dict[str, Any]:
                heard = await converse(mesh.grpc_target, clip, on_sent=meter.sent)
                if heard.refused:
                    await asyncio.sleep(clip.audio_s)  # Its speaker does without.
                return heard.row()

            if f"{prefix}/idle" not in ledger:
                ledger.add(f"{prefix}/idle", mesh.memory_bytes())
            await drive(mesh, plays, play, ledger, prefix)
        ledger.add(f"{prefix}/end", True)
    heard = [
        (play.clip, Heard.of(ledger[f"{prefix}/play/{play.key}"])) for own in plays for play in own
    ]
    level = Level(sessions, heard, samples(ledger, prefix), ledger[f"{prefix}/idle"])
    found = summary(level)
    print(json.dumps(found, indent=2))
    return found


def summary(level: Level) -> dict[str, Any]:
    """A level as results are written. Delays are in seconds, of words that were heard right."""
    whole = [(clip, heard) for clip, heard in level.heard if not heard.failure]
    clocks = [(clip, Clockwork(clip.words, heard, clip.language_code)) for clip, heard in whole]
    delays = [delay for _, clock in clocks for delay in clock.delays()]
    ends = [clock.speech_ends() for _, clock in clocks]
    pauses = [end for own in ends for end in own[:-1]]
    tally = sum((compare(c.text, h.text, c.language_code).tally for c, h in whole), start=Tally())
    cost = cpu_per_audio(level.used)
    peak_bytes = max((sample.memory_bytes for sample in level.used), default=level.idle_bytes)
    return {
        "sessions": level.sessions,
        "plays": len(level.heard),
        "refused": sum(heard.refused for _, heard in level.heard),
        "refused_after_s": quantiles([h.failed_after_s for _, h in level.heard if h.refused]),
        "failures": sorted({h.failure for _, h in level.heard if h.failure and not h.refused}),
        "notices": sorted({notice for _, heard in level.heard for notice in heard.notices}),
        "words_timed": len(delays),
        "words_said": sum(len(clip.words) for clip, _ in whole),
        "first_shown_s": quantiles([delay.first_s for delay in delays]),
        "shown_as_it_remained_s": quantiles([delay.remained_s for delay in delays]),
        "final_s": quantiles([delay.final_s for delay in delays]),
        "pause_to_final_s": quantiles([end for end in pauses if end is not None]),
        "pauses_timed": sum(end is not None for end in pauses),
        "pauses": len(pauses),
        "last_word_to_final_s": quantiles([own[-1] for own in ends if own and own[-1] is not None]),
        "finish_to_finished_s": quantiles([heard.finished_s - heard.end_s for _, heard in whole]),
        "word_end_error_s": quantiles([abs(delay.time_error_s) for delay in delays], (50, 95)),
        **tally.row(),
        "cpu_s_per_audio_s": round(cost, 3) if cost is not None else None,
        "cores_used": round(_cores(level.used), 2),
        "memory_mb": round(peak_bytes / 1e6),
        "memory_mb_per_session": round((peak_bytes - level.idle_bytes) / 1e6 / level.sessions, 1),
        "client_late_s": round(max((heard.late_s for _, heard in level.heard), default=0.0), 3),
        "client_held_s": round(max((heard.held_s for _, heard in level.heard), default=0.0), 3),
    }


def _cores(used: Sequence[Sample]) -> float:
    """Cores that the mesh kept busy on average."""
    wall_s = sum(sample.wall_s for sample in used)
    return sum(sample.cpu_s for sample in used) / wall_s if wall_s else 0.0
