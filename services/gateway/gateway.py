"""What all protocols share: settings, pools, and the sessions that are open."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from services.gateway.config import Settings
from services.gateway.pools import ModelInfo
from services.gateway.session import Session, SessionConfig


class Gateway:
    """The gateway behind its protocols."""

    settings: Settings

    @contextmanager
    def session(self, config: SessionConfig) -> Iterator[Session]:
        """Open a session and hold its slot for the length of the ``with`` block.

        Raises:
            NotFoundError: No pool serves the model.
            InvalidRequestError: The model lacks the language or the task.
            OverloadedError: As many sessions are open as the gateway serves.
            DrainingError: The gateway is stopping.
            UpstreamError: No recogniser has been reached yet.

        """
        raise NotImplementedError
        yield

    def models(self) -> Sequence[ModelInfo]:
        """What can be asked for now, the default first."""
        raise NotImplementedError

    async def ready(self) -> dict[str, bool]:
        """Whether each stage answers its health check: ``{"vad": bool, "asr": bool}``."""
        raise NotImplementedError
