"""How prompt is ``/v1/listen``, as Deepgram measures? ``python -m bench.deepgram``; see README.md.

Recordings are played at the pace of speech, whole ones for interim results, and pieces of them with
``Finalize`` at any moment and ``CloseStream`` at the end.
"""

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

from bench import tables
from bench.corpus import BYTES_PER_S, Clip
from bench.delays import Clockwork
from bench.fleet import drive, share_out
from bench.listen_client import Listened, listen
from bench.mesh import Meter, served
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

_PERCENTS = (50, 90, 99)
_SHORTEST_S, _LONGEST_S = 8.0, 14.0
"""Of a piece."""
_FINALIZES = 2
"""In a piece: one in each half, where nothing has been said yet that could be asked for."""
_EARLIEST_S = 1.0


def piece(clips: Sequence[Clip], rng: random.Random) -> Clip:
    """Some seconds of one of the clips, from anywhere in it, with their words."""
    whole = rng.choice(clips)
    duration_s = min(rng.uniform(_SHORTEST_S, _LONGEST_S), whole.audio_s)
    start_s = rng.uniform(0, whole.audio_s - duration_s)
    first = round(start_s * BYTES_PER_S) // 2 * 2
    pcm = whole.pcm[first : first + round(duration_s * BYTES_PER_S) // 2 * 2]
    return Clip(f"{whole.id}+{start_s:.2f}", pcm, "", whole.language_code)


def moments(clip: Clip, rng: random.Random) -> list[float]:
    """When to ask for a piece's words so far, in seconds."""
    part_s = (clip.audio_s - _EARLIEST_S) / _FINALIZES
    return [_EARLIEST_S + (part + rng.random()) * part_s for part in range(_FINALIZES)]


def summary(whole: Sequence[tuple[Clip, Listened]], parts: Sequence[Listened]) -> dict[str, Any]:
    """What came of all sessions, as results are written.

    Args:
        whole: Those of whole recordings.
        parts: Those of pieces.

    """
    interims = [
        result
        for listened in (*(listened for _, listened in whole), *parts)
        for result in listened.results
        if not result.final
    ]
    delays = [
        delay
        for clip, listened in whole
        for delay in Clockwork(clip.words, listened.heard(), clip.language_code).delays()
    ]
    behind_s = [result.sent_s - result.end_s for result in interims]
    old_s = [result.at_s - result.words[-1].end_s for result in interims if result.words]
    finalize_s = [delay_s for listened in parts for delay_s in listened.finalize_delays_s]
    close_s = [listened.close_delay_s for listened in parts]
    sessions = [*(listened for _, listened in whole), *parts]
    return {
        "sessions": len(sessions),
        "interims": len(interims),
        "interim_behind_s": quantiles(behind_s, _PERCENTS),
        "last_word_old_s": quantiles(old_s, _PERCENTS),
        "words_timed": len(delays),
        "first_shown_s": quantiles([delay.first_s for delay in delays], _PERCENTS),
        "final_s": quantiles([delay.final_s for delay in delays], _PERCENTS),
        "finalizes": len(finalize_s),
        "finalize_s": quantiles(finalize_s, _PERCENTS),
        "closes": len(close_s),
        "close_s": quantiles(close_s, _PERCENTS),
        "client_late_s": round(max(listened.late_s for listened in sessions), 3),
    }


async def main(args: argparse.Namespace) -> None:
    """Play everything, and write what came out."""
    name = result_name("deepgram", args)
    ledger = open_ledger(name, args)
    clips = [recording.clip() for recording in corpus(args, timed=True)]
    rng = random.Random(args.seed)
    pieces = [piece(clips, rng) for _ in range(args.pieces)]
    asked = {clip.id: moments(clip, rng) for clip in pieces}

    async def play(clip: Clip, meter: Meter) -> dict[str, Any]:
        listened = await listen(mesh.url, clip, finalize_at_s=asked.get(clip.id, ()))
        meter.sent(clip.audio_s)
        return listened.row()

    with served(args.model, environment(args)) as mesh:
        parts = await drive(mesh, share_out(pieces, args.at_once), play, ledger, "pieces")
        whole = await drive(mesh, share_out(clips, args.at_once), play, ledger, "whole")
    found = summary(
        [(clip, Listened.of(row)) for clip, row in whole], [Listened.of(row) for _, row in parts]
    )
    print(json.dumps(found, indent=2))
    about = {"recordings": [clip.id for clip in clips], "at_once": args.at_once}
    write(name, args, about | found)
    ledger.close()
    tables.update()


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="base")
    add_manifests(parser)
    parser.add_argument("--at-once", type=int, default=1, help="sessions at once")
    parser.add_argument("--pieces", type=int, default=30, help="of the recordings")
    parser.add_argument("--seed", type=int, default=0, help="decides where they are cut")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
