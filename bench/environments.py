"""Environments of their own for what benches compare voxmesh with: nothing of it enters ours."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def cache_dir() -> Path:
    """Where environments and converted weights lie unless an option says otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "voxmesh" / "bench"


def install(venv: Path, requirements: Sequence[str], named: Sequence[str]) -> dict[str, str]:
    """Make an environment unless it is there; versions of some of what it has, by package.

    Args:
        venv: Its folder.
        requirements: What it is to have; the first is pinned, and says whether all are there.
        named: Packages whose versions are asked for.

    Raises:
        CalledProcessError: A package could not be installed.

    """
    python = python_of(venv)
    if not python.exists():
        venv.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    package, _, version = requirements[0].partition("==")
    if _versions(python).get(package) != version:
        subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True)
    found = _versions(python)
    return {name: found[name] for name in named if name in found}


def _versions(python: Path) -> dict[str, str]:
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {package["name"]: package["version"] for package in json.loads(listed)}


def python_of(venv: Path) -> Path:
    """The interpreter of an environment."""
    return venv / "bin" / "python"
