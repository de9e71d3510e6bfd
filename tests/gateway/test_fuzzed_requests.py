"""Requests that Schemathesis makes of openapi.yaml, and what the gateway answers to them."""

import asyncio
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from services.gateway.documents import document
from tests.gateway.fakes import FakeAsr, FakeVad, running, served, spans_of
from tests.gateway.test_openai import BOTH, WORDS, wav
from tests.robustness.broken import times

UNFIT: list[CheckFunction] = [negative_data_rejection, positive_data_acceptance]
"""What clients send besides is accepted, and a schema does not know which languages there are."""

RECORDINGS = st.sampled_from([wav(1.0), b"this is no audio" * 100])
schemathesis.openapi.format("binary", RECORDINGS)
schemathesis.openapi.media_type("audio/wav", RECORDINGS)

api = schemathesis.openapi.from_dict(document("openapi"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A gateway on a thread: Schemathesis waits for its answers."""
    started: Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Queue()

    async def serve() -> None:
        over = asyncio.Event()
        async with (
            running(FakeVad(spans_of(WORDS)), FakeAsr(WORDS, tasks=BOTH)) as mesh,
            served(mesh.gateway) as port,
        ):
            started.put((asyncio.get_running_loop(), over, port))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop, over, port = started.get(timeout=30)
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(over.set)
    thread.join()


@api.parametrize()
@times(0.5)
def test_every_request_is_answered_as_it_is_described(
    case: "schemathesis.Case[Any]", address: str
) -> None:
    case.call_and_validate(base_url=address, timeout=20, excluded_checks=UNFIT)
