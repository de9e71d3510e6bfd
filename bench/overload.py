"""What do those who are let in notice of those who are not? ``python -m bench.overload``.

First one client alone, then more than there is room for, all of whom come and speak at the pace of
speech; who is refused speaks to nobody for as long as it would have taken, and comes again.
"""

import argparse
import asyncio

from bench import tables
from bench.levels import measure
from bench.report import add_manifests, add_options, corpus, open_ledger, result_name, write


async def main(args: argparse.Namespace) -> None:
    """Measure both, and write what came out as JSON."""
    name = result_name("overload", args)
    ledger = open_ledger(name, args)
    clips = [recording.clip() for recording in corpus(args, timed=True)]
    found = [
        await measure(args, clips, sessions=sessions, ledger=ledger)
        for sessions in (1, args.arrivals)
    ]
    write(name, args, {"recordings": [clip.id for clip in clips], "levels": found})
    ledger.close()
    tables.update()


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="tiny.en")
    add_manifests(parser)
    parser.add_argument(
        "--arrivals", type=int, required=True, help="clients at once: twice what there is room for"
    )
    parser.add_argument(
        "--turns", type=int, default=2, help="recordings that each client plays; 0: all"
    )
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
