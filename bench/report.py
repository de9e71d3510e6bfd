"""What all benches share: their options, where results go, and on what they were measured."""

import argparse
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.corpus import Recording, recordings, two_cities
from bench.ledger import Ledger

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def add_options(parser: argparse.ArgumentParser, *, model: str) -> None:
    """The options that every bench of recognition has."""
    parser.add_argument("--model", default=model, help=f"name or folder; default: {model}")
    parser.add_argument("--engine", default="", help="ASR_ENGINE of the mesh; default: the mesh's")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the mesh, such as ASR_MIN_STEP_MS=500; may be repeated",
    )
    parser.add_argument("--name", default="", help="of the result; default: model and engine")


def add_manifests(parser: argparse.ArgumentParser) -> None:
    """The option that says what is played."""
    parser.add_argument(
        "--manifest",
        type=Path,
        nargs="+",
        default=[],
        help="recordings with word times; default: two_cities.wav",
    )


def environment(args: argparse.Namespace) -> dict[str, str]:
    """The settings that the options ask of a mesh."""
    engine = {"ASR_ENGINE": args.engine} if args.engine else {}
    return engine | dict(setting.split("=", 1) for setting in args.env)


def result_name(bench: str, args: argparse.Namespace) -> str:
    """Name of the file that the result goes to, without its ending."""
    chosen = args.name or "-".join(filter(None, (Path(args.model).name, args.engine)))
    return f"{bench}-{chosen}"


def corpus(args: argparse.Namespace, *, timed: bool = False) -> list[Recording]:
    """The recordings to play.

    Args:
        args: Says the manifests, and the model.
        timed: Whether the times of words are needed.

    Raises:
        ModelMissingError: ``two_cities.wav`` is to be played and is not installed.

    """
    if not args.manifest:
        return [two_cities(timed_by=args.model if timed else "")]
    found = [recording for manifest in args.manifest for recording in recordings(manifest)]
    return [recording for recording in found if understood(args.model, recording)]


def understood(model: str, recording: Recording) -> bool:
    """Whether a model knows the language of a recording."""
    return recording.language_code == "en" or not Path(model).name.endswith(".en")


def open_ledger(name: str, args: argparse.Namespace) -> Ledger:
    """The ledger of a run with these options and the services as they are now."""
    return Ledger(name, {**{k: str(v) for k, v in vars(args).items()}, "services": _services()})


def write(name: str, args: argparse.Namespace, found: Mapping[str, Any]) -> Path:
    """Write what a bench found, after where, when and how it was found; the path of the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    report = {
        "measured": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "command": shlex.join(["python", "-m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "services": _services(),
        "model": Path(args.model).name,
        "settings": environment(args),
        **found,
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def hardware() -> str:
    """The machine in a line."""
    processor = platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        names = [line for line in listed.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    memory_gb = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores ({processor}), {memory_gb:.0f} GB, {_gpu() or 'no GPU'}"


def _gpu() -> str:
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").replace("\n", ", ")


def _services() -> str:
    """Which code was measured: the tree of ``services``, and whether it had been touched."""
    tree = _output("git", "rev-parse", "--short", "HEAD:services")
    return tree + ("+" if _output("git", "status", "--porcelain", "services") else "")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def quantiles(values: Sequence[float], percents: Iterable[int] = (50, 95, 99)) -> dict[str, float]:
    """Percentiles by linear interpolation, as ``p50`` and so on; empty: there are no values."""
    if not values:
        return {}
    return {f"p{percent}": round(float(np.percentile(values, percent)), 3) for percent in percents}
