"""How soon can a word be read, and when is it final? ``python -m bench.latency``; see README.md.

Recordings are played at the pace of speech into ``Converse``, so many at once, on a mesh of its
own. Every delay runs by the wall clock, from the moment a word of the reference has been spoken.
"""

import argparse
import asyncio

from bench import tables
from bench.levels import measure
from bench.report import (
    add_manifests,
    add_options,
    corpus,
    open_ledger,
    result_name,
    write,
)


async def main(args: argparse.Namespace) -> None:
    """Measure each number of sessions, and write what came out."""
    name = result_name("latency", args)
    ledger = open_ledger(name, args)
    clips = [recording.clip() for recording in corpus(args, timed=True)]
    found = [
        await measure(args, clips, sessions=sessions, ledger=ledger) for sessions in args.at_once
    ]
    write(name, args, {"recordings": [clip.id for clip in clips], "levels": found})
    ledger.close()
    tables.update()


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="base")
    add_manifests(parser)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1], help="sessions at once")
    parser.add_argument(
        "--turns", type=int, default=0, help="recordings that each session's client plays; 0: all"
    )
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
