"""``python -m services.translator``: one replica of the translator service."""

import asyncio

import structlog

from services.common.batching import Batcher
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.process import start
from services.common.server import serve
from services.common.tls import mesh_identity
from services.common.watched import FileError
from services.translator.config import Settings
from services.translator.engines.choice import load_engine
from services.translator.policies.choice import policy_of
from services.translator.servicer import TranslatorServicer
from services.translator.translator import Job, Translator
from voxmesh.translator.v1 import translator_pb2_grpc as rpc

log = structlog.get_logger(__name__)

_STEP_S = 0.3
"""Somebody who speaks adds three or four words and guesses in a second."""
_PROBE_INTERVAL_S = 10.0


async def main(chosen: Settings) -> None:
    """Load the model, prove that it answers, serve it.

    Raises:
        ModelError: It is not installed.
        DeviceError: It cannot be loaded, or does not answer.
        FileError: The files that the settings name cannot be used.

    """
    translator, workers = load_engine(chosen)
    await replica(translator, workers, chosen)


async def replica(translator: Translator, workers: int, chosen: Settings) -> None:
    """Serve an engine until told to stop.

    Args:
        translator: The engine.
        workers: Batches at once.
        chosen: The settings of everything else.

    Raises:
        DeviceError: The model does not answer.
        FileError: The files that the settings name cannot be used.

    """
    stopping = asyncio.Event()
    identity = mesh_identity(chosen)
    batcher = Batcher(
        "translator",
        translator.translate,
        translator.bucket,
        step_s=_STEP_S,
        workers=workers,
        max_batch=chosen.max_batch,
    )
    servicer = TranslatorServicer(
        translator,
        batcher,
        policy_of(chosen),
        max_streams=chosen.max_streams,
        stopping=stopping,
        drain_s=chosen.drain_s,
    )
    sample = Job(translator.example, "1, 2, 3.")

    async def probe() -> bool:
        # A replica that answers its streams is healthy, however long its queue is.
        if batcher.idle_s < _PROBE_INTERVAL_S:
            return True
        try:
            await batcher.probe(sample)
        except DeviceError as error:
            log.warning("the model does not answer", reason=str(error))
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(batcher.run(), name="translator.batcher")
        # The first run of a model is slower than all others, and measures nothing.
        await batcher.probe(sample)
        log.info("model loaded", model=chosen.model, engine=translator.name)
        await serve(
            lambda server: rpc.add_TranslatorServiceServicer_to_server(servicer, server),
            service_names=["voxmesh.translator.v1.TranslatorService"],
            address=chosen.address,
            drain_s=chosen.drain_s,
            stopping=stopping,
            identity=identity,
            probe=probe,
            probe_interval_s=_PROBE_INTERVAL_S,
        )
        work.cancel()


if __name__ == "__main__":
    start("translator", Settings, main, reasons=(DeviceError, FileError, ModelError))
