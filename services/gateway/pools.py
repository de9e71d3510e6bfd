"""The pools of recognisers behind the gateway, and which one serves a model."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc.aio
import structlog

from services.common.channel import serves
from services.common.errors import InvalidRequestError, NotFoundError, UpstreamError
from services.common.tls import Identity
from services.gateway.link import Link
from services.gateway.session_config import Task
from services.gateway.upstream import TASKS
from voxmesh.asr.v1 import asr_pb2, asr_pb2_grpc

log = structlog.get_logger(__name__)

ALIASES = frozenset(
    {
        "whisper-1",
        "gpt-4o-transcribe",
        "gpt-4o-mini-transcribe",
        "gpt-transcribe",
        "gpt-4o-transcribe-diarize",
        "gpt-live-transcribe",
        "gpt-realtime-whisper",
    }
)
"""Names that clients of other services ask for: the default pool answers to them."""

_SERVICE = "voxmesh.asr.v1.AsrService"
_DESCRIBE_S = 2.0
_RETRY_S = 1.0
"""Between two attempts to reach a pool that has not answered yet."""
_REFRESH_EVERY = 30
"""So many attempts later, pools that have answered are asked again."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a pool can do."""

    name: str
    """Catalogue name, such as ``base``."""
    engine: str
    """Engine and where it runs, such as ``ctranslate2/cpu/int8``."""
    language_codes: tuple[str, ...]
    """ISO 639-1 codes of the languages it understands."""
    tasks: tuple[Task, ...]
    version: ClassVar[str] = "1"
    """What clients are told who want to know one."""

    @property
    def uuid(self) -> str:
        """The same wherever the model is served."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"voxmesh:{self.name}"))

    def check(self, language_code: str, task: Task) -> None:
        """See whether the model can do this.

        Raises:
            InvalidRequestError: It lacks the language or the task.

        """
        if language_code and language_code not in self.language_codes:
            known = ", ".join(self.language_codes)
            raise InvalidRequestError(
                f"model {self.name} does not understand language {language_code!r}, only: {known}"
            )
        if task not in self.tasks:
            raise InvalidRequestError(f"model {self.name} cannot {task.value}")


class Pool:
    """Replicas of one engine and model behind one target."""

    def __init__(self, target: str, identity: Identity | None) -> None:
        self.link = Link(target, identity)
        self.info: ModelInfo | None = None
        """What it can do; unknown until it has been reached."""

    async def describe(self) -> None:
        """Ask the pool what it can do; no answer changes nothing."""
        stub = asr_pb2_grpc.AsrServiceStub(self.link.channel)
        try:
            answer = await stub.Describe(
                asr_pb2.DescribeRequest(), timeout=_DESCRIBE_S, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            log.info("pool not reached", target=self.link.target, code=error.code().name)
            return
        tasks = tuple(task for task, number in TASKS.items() if number in answer.tasks)
        info = ModelInfo(answer.model, answer.engine, tuple(answer.language_codes), tasks)
        if info != self.info:
            log.info("pool found", target=self.link.target, model=info.name, engine=info.engine)
        self.info = info

    async def ready(self, *, timeout_s: float) -> bool:
        """Whether a replica is healthy."""
        return await serves(self.link.channel, _SERVICE, timeout_s=timeout_s)


class Pools:
    """All pools; the first is the default."""

    def __init__(self, targets: Sequence[str], identity: Identity | None = None) -> None:
        """Open a channel to each.

        Args:
            targets: Where they are.
            identity: What the gateway proves to them; None: nothing.

        """
        self._pools = [Pool(target, identity) for target in targets]

    @property
    def default(self) -> Pool:
        """The pool for whoever names no model."""
        return self._pools[0]

    @property
    def models(self) -> list[ModelInfo]:
        """What can be asked for now, the default first."""
        return [pool.info for pool in self._pools if pool.info is not None]

    def choose(self, model: str) -> tuple[Pool, ModelInfo]:
        """The pool that serves a model.

        Raises:
            NotFoundError: No pool does.
            UpstreamError: The pool that may has not been reached yet.

        """
        if not model or model in ALIASES:
            if self.default.info is None:
                raise UpstreamError("the recogniser has not been reached yet")
            return self.default, self.default.info
        for pool in self._pools:
            if pool.info is not None and pool.info.name == model:
                return pool, pool.info
        if any(pool.info is None for pool in self._pools):
            raise UpstreamError(f"no recogniser reached so far serves model {model!r}")
        known = ", ".join(info.name for info in self.models)
        raise NotFoundError(f"no model {model!r}; there is: {known}")

    async def describe(self) -> None:
        """Ask every pool that has not answered yet."""
        unknown = [pool for pool in self._pools if pool.info is None]
        await asyncio.gather(*(pool.describe() for pool in unknown))

    async def discover(self) -> None:
        """Look for pools that have not answered yet, and at times for changes in the others."""
        while True:
            for _ in range(_REFRESH_EVERY):
                await self.describe()
                await asyncio.sleep(_RETRY_S)
            await asyncio.gather(*(pool.describe() for pool in self._pools))

    async def close(self) -> None:
        """Close every channel."""
        await asyncio.gather(*(pool.link.close() for pool in self._pools))
