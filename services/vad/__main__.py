"""``python -m services.vad``: one replica of the VAD service."""

import asyncio

import numpy as np
import structlog

from services.common.errors import DeviceError
from services.common.process import start
from services.common.server import serve
from services.common.timeline import samples, samples_of_ms
from services.common.tls import mesh_identity
from services.common.watched import FileError
from services.vad.batcher import Batcher
from services.vad.config import Settings
from services.vad.detector import WINDOW_SAMPLES, fresh_memory
from services.vad.endpointer import Endpointing
from services.vad.servicer import VadServicer
from services.vad.silero import SileroDetector
from voxmesh.vad.v1 import vad_pb2_grpc as rpc

log = structlog.get_logger(__name__)


async def main(chosen: Settings) -> None:
    """Load the model, prove that it answers, serve it.

    Raises:
        DeviceError: It cannot be loaded, or does not answer.
        FileError: The files that the settings name cannot be used.

    """
    stopping = asyncio.Event()
    identity = mesh_identity(chosen)
    batcher = Batcher(SileroDetector(chosen.model), threads=chosen.threads)
    servicer = VadServicer(
        batcher,
        max_streams=chosen.max_streams,
        defaults=Endpointing(
            chosen.onset_threshold,
            chosen.offset_threshold,
            samples_of_ms(chosen.min_speech_ms),
            samples_of_ms(chosen.hangover_ms),
            samples(chosen.max_speech_s),
        ),
        stopping=stopping,
        drain_s=chosen.drain_s,
    )

    async def infer() -> None:
        window = np.zeros((1, WINDOW_SAMPLES), np.float32)
        await batcher.classify(window, fresh_memory(batcher.detector))

    async def probe() -> bool:
        try:
            await infer()
        except DeviceError as error:
            log.warning("the model does not answer", reason=str(error))
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(batcher.run(), name="vad.batcher")
        await infer()
        await serve(
            lambda server: rpc.add_VadServiceServicer_to_server(servicer, server),
            service_names=["voxmesh.vad.v1.VadService"],
            address=chosen.address,
            drain_s=chosen.drain_s,
            stopping=stopping,
            identity=identity,
            probe=probe,
        )
        work.cancel()


if __name__ == "__main__":
    start("vad", Settings, main, reasons=(DeviceError, FileError))
