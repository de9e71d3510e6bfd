"""Environments of SDKs, and programs that run in them."""

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.conftest import ROOT

_CLIENTS = Path(__file__).parent / "clients"
_ENVIRONMENTS = ROOT / ".venv-sdks"
_CLIENT_S = 120.0

Observed: TypeAlias = list[dict[str, Any]]
RunClient: TypeAlias = Callable[..., Awaitable[Observed]]


def environment_of(name: str) -> Path:
    """The folder of an environment; where there is none, the test is skipped."""
    folder = _ENVIRONMENTS / name
    if not (folder / "installed").exists():
        pytest.skip(f"no environment {name}: make sdks")
    return folder


@pytest.fixture
def run_client() -> RunClient:
    """Runs a program of ``clients/`` in an environment, and returns what it observed.

    ``await run_client("deepgram-7", "deepgram_live.py", "--url", url)``; a program for Node.js runs
    in the folder of its environment. What else the process finds in its environment can be named.
    """

    async def run(environment: str, program: str, *arguments: str, **variables: str) -> Observed:
        folder = environment_of(environment)
        node = program.endswith(".mjs")
        if node and shutil.which("node") is None:
            pytest.skip("no Node.js")
        process = await asyncio.create_subprocess_exec(
            "node" if node else folder / "bin" / "python",
            _CLIENTS / program,
            *arguments,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables},
        )
        try:
            async with asyncio.timeout(_CLIENT_S):
                written, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, complaints.decode(errors="replace")
        return [json.loads(line) for line in written.decode().splitlines()]

    return run
