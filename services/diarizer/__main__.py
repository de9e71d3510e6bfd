"""``python -m services.diarizer``: one replica of the diarizer service."""

import asyncio

import numpy as np
import structlog

from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.process import start
from services.common.server import serve
from services.common.timeline import samples_of_ms
from services.common.tls import mesh_identity
from services.common.watched import FileError
from services.diarizer.batcher import Batcher
from services.diarizer.config import Settings
from services.diarizer.diarizer import Diarizer, Step, Wishes
from services.diarizer.engines.choice import load_engine
from services.diarizer.servicer import DiarizerServicer
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

log = structlog.get_logger(__name__)

_PROBE_INTERVAL_S = 10.0


async def main(chosen: Settings) -> None:
    """Load the model and serve it.

    Raises:
        ModelError: It is not installed.
        DeviceError: It cannot be loaded, or does not answer.
        FileError: The files that the settings name cannot be used.

    """
    model, workers = load_engine(chosen)
    await replica(model, workers, chosen)


async def replica(model: Diarizer, workers: int, chosen: Settings) -> None:
    """Prove that a model answers, and serve it.

    Args:
        model: What tells speakers apart.
        workers: Batches at once.
        chosen: Everything else.

    Raises:
        DeviceError: It does not answer.
        FileError: The files that the settings name cannot be used.

    """
    stopping = asyncio.Event()
    identity = mesh_identity(chosen)
    batcher = Batcher(model, workers=workers, max_batch=chosen.max_batch)
    servicer = DiarizerServicer(
        batcher,
        max_streams=chosen.max_streams,
        max_speakers=chosen.max_speakers,
        look_ahead=samples_of_ms(chosen.latency_ms),
        stopping=stopping,
        drain_s=chosen.drain_s,
    )

    async def infer(num_samples: int) -> None:
        heard = np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)
        memory = await batcher.start(())
        await batcher.probe(Step(memory, heard, num_samples, 0, Wishes(1)))

    async def probe() -> bool:
        # A replica that answers its streams is healthy, however long its queue is.
        if batcher.idle_s < _PROBE_INTERVAL_S:
            return True
        try:
            await infer(model.step_samples)
        except DeviceError as error:
            log.warning("the model does not answer", reason=str(error))
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(batcher.run(), name="diarizer.batcher")
        # The first run of a model is slower than all others, and measures nothing.
        await infer(model.step_samples)
        await infer(model.context_samples)
        log.info("model loaded", model=chosen.model, engine=model.name)
        await serve(
            lambda server: rpc.add_DiarizerServiceServicer_to_server(servicer, server),
            service_names=["voxmesh.diarizer.v1.DiarizerService"],
            address=chosen.address,
            drain_s=chosen.drain_s,
            stopping=stopping,
            identity=identity,
            probe=probe,
            probe_interval_s=_PROBE_INTERVAL_S,
        )
        work.cancel()


if __name__ == "__main__":
    start("diarizer", Settings, main, reasons=(DeviceError, FileError, ModelError))
