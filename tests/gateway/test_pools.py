import asyncio
import tempfile
from pathlib import Path

import pytest

from services.common.errors import InvalidRequestError, NotFoundError, UpstreamError
from services.gateway.pools import ALIASES, ModelInfo, Pools
from services.gateway.session_config import Task
from tests.gateway.fakes import FakeAsr, Replica
from voxmesh.asr.v1 import asr_pb2_grpc


def replica(folder: str, asr: FakeAsr) -> Replica:
    return Replica(
        Path(folder) / asr.model,
        lambda server: asr_pb2_grpc.add_AsrServiceServicer_to_server(asr, server),
        "voxmesh.asr.v1.AsrService",
    )


async def test_the_model_chooses_the_pool_and_the_first_is_the_default() -> None:
    with tempfile.TemporaryDirectory(prefix="vm") as folder:
        replicas = [replica(folder, FakeAsr(model=name)) for name in ("tiny", "base")]
        for one in replicas:
            await one.start()
        pools = Pools([one.target for one in replicas])
        await pools.describe()
        assert [info.name for info in pools.models] == ["tiny", "base"]
        assert pools.choose("base")[0].link.target == replicas[1].target
        for name in ("", "tiny", *ALIASES):
            pool, info = pools.choose(name)
            assert pool is pools.default
            assert info.name == "tiny"
        with pytest.raises(NotFoundError, match="tiny, base"):
            pools.choose("huge")
        await pools.close()
        for one in replicas:
            await one.kill()


async def test_a_pool_that_comes_late_is_found() -> None:
    with tempfile.TemporaryDirectory(prefix="vm") as folder:
        late = replica(folder, FakeAsr(model="late"))
        pools = Pools([late.target])
        with pytest.raises(UpstreamError):
            pools.choose("")
        with pytest.raises(UpstreamError):
            pools.choose("late")
        discover = asyncio.create_task(pools.discover())
        await asyncio.sleep(0.2)  # the first attempt finds nobody
        assert pools.models == []
        await late.start()
        async with asyncio.timeout(10):
            while not pools.models:  # noqa: ASYNC110 -- the task goes on for ever
                await asyncio.sleep(0.05)
        assert pools.choose("late")[1].engine == "fake/cpu"
        discover.cancel()
        await pools.close()
        await late.kill()


INFO = ModelInfo("tiny.en", "fake/cpu", ("en",), (Task.TRANSCRIBE,))


@pytest.mark.parametrize("language", ["", "en"])
def test_what_a_model_can_do_passes(language: str) -> None:
    INFO.check(language, Task.TRANSCRIBE)


@pytest.mark.parametrize(
    ("language", "task", "message"),
    [("de", Task.TRANSCRIBE, "only: en"), ("en", Task.TRANSLATE, "cannot translate")],
)
def test_what_a_model_cannot_do_is_refused_by_name(language: str, task: Task, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        INFO.check(language, task)
