"""The way from the gateway to a stage."""

import asyncio

import grpc.aio

from services.common.channel import open_channel
from services.common.tls import Identity


class Link:
    """A channel to a stage, and another one when the gateway's certificate has been replaced."""

    def __init__(self, target: str, identity: Identity | None = None) -> None:
        """Open the channel.

        Args:
            target: ``unix:/path``, ``host:port`` or ``dns:///host:port``.
            identity: What the gateway proves to the stage; None: nothing.

        """
        self.target = target
        self.quarantine = asyncio.Lock()
        """Held by the one session that is tried alone: its audio may be what kills replicas.

        Sessions that share a replica lose their streams together: tried again together, those of
        innocent audio would seem as guilty as the one that kills.
        """
        self._identity = identity
        self._credentials = self._newest()
        self._channel = open_channel(target, self._credentials)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel for what begins now. The one before closes when its last user lets go."""
        if (newest := self._newest()) is not self._credentials:
            self._credentials = newest
            self._channel = open_channel(self.target, newest)
        return self._channel

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def _newest(self) -> grpc.ChannelCredentials | None:
        return None if self._identity is None else self._identity.channel_credentials
