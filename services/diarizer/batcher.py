"""Makes the steps of all streams together, off the event loop, and says how many streams fit."""

from collections.abc import Sequence

from services.common import batching
from services.common.audio import FloatArray
from services.common.batching import Seat
from services.common.timeline import seconds
from services.diarizer.diarizer import Diarizer, Finding, Memory, Step

__all__ = ["Batcher", "Seat"]


class Batcher(batching.Batcher[Step, Finding]):
    """One model, shared by the streams of a replica. ``run`` does the work and never returns."""

    def __init__(self, diarizer: Diarizer, *, workers: int, max_batch: int) -> None:
        """Share a model.

        Args:
            diarizer: The model.
            workers: Batches at once.
            max_batch: Steps in one batch.

        """
        super().__init__(
            "diarizer",
            diarizer.advance,
            diarizer.bucket,
            step_s=seconds(diarizer.step_samples),
            workers=workers,
            max_batch=max_batch,
        )
        self.diarizer = diarizer

    async def start(self, enrolled: Sequence[FloatArray]) -> Memory:
        """What a stream remembers that has heard nothing.

        Raises:
            InvalidRequestError: Somebody is enrolled with too little speech.
            DeviceError: The model failed.

        """
        return await self.elsewhere(lambda: self.diarizer.start(enrolled))
