"""How many sessions does a machine carry? ``python -m bench.capacity``; see README.md.

Sessions at the pace of speech, 1, then 2, 4, 8 and so on, each number on a mesh of its own, until
final words come too late for one in twenty, or a session is refused.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench import tables
from bench.levels import measure
from bench.report import (
    RESULTS,
    add_manifests,
    add_options,
    corpus,
    hardware,
    open_ledger,
    result_name,
    write,
)


async def main(args: argparse.Namespace) -> None:
    """Measure level by level, and write what came out as JSON and as a picture."""
    name = result_name("capacity", args)
    ledger = open_ledger(name, args)
    clips = [recording.clip() for recording in corpus(args, timed=True)]
    found: list[dict[str, Any]] = []
    for sessions in args.levels:
        found.append(await measure(args, clips, sessions=sessions, ledger=ledger))
        if not carried(found[-1], args.bound):
            break
    carries = max((row["sessions"] for row in found if carried(row, args.bound)), default=0)
    write(
        name,
        args,
        {
            "recordings": [clip.id for clip in clips],
            "bound_p95_final_s": args.bound,
            "carries": carries,
            "levels": found,
        },
    )
    title = f"{Path(args.model).name} {args.engine}".strip() + f" on {hardware()}"
    draw(found, args.bound, title, RESULTS / f"{name}.png")
    ledger.close()
    tables.update()


def carried(level: Mapping[str, Any], bound_s: float) -> bool:
    """Whether all sessions were served, and final words in time."""
    in_time = level["final_s"].get("p95", float("inf")) <= bound_s
    return bool(in_time and not level["refused"] and not level["failures"])


def draw(levels: Sequence[Mapping[str, Any]], bound_s: float, title: str, path: Path) -> None:
    """Delays, errors and cost against the number of sessions."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    figure.suptitle(title)
    delays, errors, cost = figure.subplots(1, 3)
    timed = [level for level in levels if level["final_s"]]
    sessions = [level["sessions"] for level in timed]
    for kind, label in (("final_s", "final"), ("first_shown_s", "first shown")):
        for percentile, style in (("p95", "-"), ("p50", "--")):
            values = [level[kind][percentile] for level in timed]
            color = "tab:blue" if kind == "final_s" else "tab:orange"
            delays.plot(
                sessions, values, style, color=color, marker="o", label=f"{label}, {percentile}"
            )
    delays.axhline(bound_s, color="tab:red", linewidth=1, label=f"bound, {bound_s:g} s")
    delays.set(title="delay after a word was spoken", ylabel="s")
    errors.plot(sessions, [level["wer_percent"] for level in timed], marker="o")
    errors.set(title="word error rate", ylabel="%")
    cost.plot(
        sessions, [level["cpu_s_per_audio_s"] for level in timed], marker="o", label="each session"
    )
    cost.plot(sessions, [level["cores_used"] for level in timed], marker="s", label="all of them")
    cost.set(title="cores used by the mesh", ylabel="CPU s per s")
    for axes in (delays, errors, cost):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sessions, [str(number) for number in sessions])
        axes.axhline(0, alpha=0)  # the scale begins there
        axes.set_xlabel("sessions at once")
        axes.grid(alpha=0.3)
    for axes in (delays, cost):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, fontsize="small")
    figure.savefig(path, dpi=100)


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, model="base")
    add_manifests(parser)
    parser.add_argument(
        "--levels",
        type=int,
        nargs="+",
        default=[2**power for power in range(10)],
        help="numbers of sessions; default: 1, 2, 4, ... 512",
    )
    parser.add_argument(
        "--bound", type=float, default=3.0, help="where the p95 of final words breaks, in seconds"
    )
    parser.add_argument(
        "--turns", type=int, default=0, help="recordings that each session's client plays; 0: all"
    )
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
