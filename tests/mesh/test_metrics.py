"""P28: metrics say what happened."""

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ServedMesh
from tests.mesh.asr import BYTES_PER_S, watch

SERVICES = ("gateway", "vad", "asr")


def metric(mesh: ServedMesh, service: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    text = httpx.get(mesh.metrics_url(service), trust_env=False).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def totals(mesh: ServedMesh, name: str) -> dict[str, float]:
    """A counter of each service that counts for its stage."""
    return {service: metric(mesh, service, name, stage=service) for service in SERVICES}


def grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {service: after[service] - before[service] for service in SERVICES}


async def test_audio_words_model_time_and_messages_are_counted(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    names = ("voxmesh_audio_seconds_total", "voxmesh_model_seconds_total")
    before = [totals(mesh_tiny, name) for name in names]
    words = metric(mesh_tiny, "asr", "voxmesh_words_committed_total")
    messages = metric(mesh_tiny, "gateway", "voxmesh_messages_sent_total", protocol="wlk")
    started = time.monotonic()
    watched = await watch(mesh_tiny.ws_url, beckett)
    took_s = time.monotonic() - started
    audio, model = (
        grown(old, totals(mesh_tiny, name)) for name, old in zip(names, before, strict=True)
    )
    duration_s = len(beckett) / BYTES_PER_S
    assert audio["gateway"] == pytest.approx(duration_s, abs=1e-6)
    assert audio["vad"] == pytest.approx(duration_s, abs=1e-6)
    # The recogniser hears speech, and 0.3 s before and 0.2 s after it.
    assert 0.5 * duration_s < audio["asr"] <= duration_s
    assert 0 < model["vad"] < took_s
    assert 0 < model["asr"] < took_s
    assert metric(mesh_tiny, "asr", "voxmesh_words_committed_total") - words == 12
    sent = metric(mesh_tiny, "gateway", "voxmesh_messages_sent_total", protocol="wlk") - messages
    assert sent == len(watched.received)


async def test_open_sessions_are_counted_while_they_are_open(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    def open_now() -> tuple[float, ...]:
        streams = (metric(mesh_tiny, name, "voxmesh_streams", stage=name) for name in SERVICES[1:])
        return metric(mesh_tiny, "gateway", "voxmesh_sessions"), *streams

    assert await settled_at(open_now, (0, 0, 0))
    seen: list[tuple[float, ...]] = []
    await asyncio.gather(
        watch(mesh_tiny.ws_url, beckett, then=[(5.0, lambda: seen.append(open_now()))]),
        watch(mesh_tiny.ws_url, beckett),
    )
    assert seen == [(2, 2, 2)]
    assert await settled_at(open_now, (0, 0, 0))


async def settled_at(
    read: Callable[[], tuple[float, ...]], wanted: tuple[float, ...], within_s: float = 10
) -> bool:
    """Whether a reading is, or soon becomes, what is wanted."""
    deadline = time.monotonic() + within_s
    while read() != wanted:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)  # for the ends of streams to reach the last service
    return True
