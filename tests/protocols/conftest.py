"""Environments of SDKs, and programs that run in them."""

import asyncio
import json
import os
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


def sdk_python(environment: str) -> Path:
    """The interpreter of an environment; where there is none, the test is skipped."""
    python = _ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment {environment}: make sdks")
    return python


@pytest.fixture
def run_client() -> RunClient:
    """Runs a program of ``clients/`` in an environment, and returns what it observed.

    ``await run_client("deepgram-7", "deepgram_live.py", "--url", url)``
    """

    async def run(environment: str, program: str, *arguments: str) -> Observed:
        python = sdk_python(environment)
        process = await asyncio.create_subprocess_exec(
            python,
            _CLIENTS / program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
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
