"""What the tests of the whole mesh share."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import ServedMesh
from tests.mesh.asr import Watched, pcm_of, watch


@pytest.fixture(scope="session")
def two_cities(speech: Path) -> bytes:
    """44 s of English, as ``/asr`` takes it."""
    return pcm_of(speech / "two_cities.wav")


@pytest.fixture(scope="session")
def beckett(speech: Path) -> bytes:
    """10 s of English, as ``/asr`` takes it."""
    return pcm_of(speech / "beckett.wav")


@pytest.fixture(scope="session")
def undisturbed(mesh_tiny: ServedMesh, two_cities: bytes) -> Watched:
    """What a client of ``/asr`` sees of ``two_cities`` when nothing happens to it."""
    return asyncio.run(watch(mesh_tiny.ws_url, two_cities))
