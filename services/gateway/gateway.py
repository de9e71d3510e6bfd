"""What all protocols share: settings, pools, and the sessions that are open."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from services.common import telemetry
from services.common.admission import Slots
from services.common.channel import serves
from services.common.errors import DrainingError
from services.common.timeline import samples, samples_of_ms
from services.common.tls import mesh_identity
from services.gateway.auth import Keys
from services.gateway.config import Settings
from services.gateway.fetch_hosts import FetchHosts
from services.gateway.link import Link
from services.gateway.pools import ModelInfo, Pools
from services.gateway.recovery import Patience
from services.gateway.resumption import Resumption
from services.gateway.session import Pace, Session, SessionConfig, SessionLimits
from services.gateway.tasks import Bell

_VAD_SERVICE = "voxmesh.vad.v1.VadService"
_PROBE_S = 2.5
"""A health check that takes longer has failed, in seconds: a busy machine needs a moment."""


class Gateway:
    """The gateway behind its protocols. Create it on the event loop, and ``close`` it there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(Path(settings.keys_file) if settings.keys_file else None)
        self.fetch_hosts = FetchHosts(settings.fetch_hosts)
        self._identity = mesh_identity(settings)
        self.pools = Pools(settings.asr_targets, self._identity)
        self._vad = Link(settings.vad_target, self._identity)
        target = settings.diarizer_target
        self._diarizer = Link(target, self._identity) if target else None
        target = settings.translator_target
        self._translator = Link(target, self._identity) if target else None
        self._slots = Slots(settings.max_sessions)
        self._slots_by_key: dict[str, Slots] = {}
        self.open_by_pace: Counter[Pace] = Counter()
        """Sessions that are served now, live ones and recordings."""
        self.draining = asyncio.Event()
        """Set when the process is to end: new sessions are refused."""
        self.closing = asyncio.Event()
        """Set when live clients have talked long enough: what they said so far is all there is."""
        self.resumption = Resumption(settings.resume_s, settings.max_sessions, self.closing)
        self._left = Bell()

    @property
    def open_sessions(self) -> int:
        """Sessions that are served now, those among them that wait for their clients."""
        return self._slots.taken

    def check_room(self, caller: str) -> None:
        """Refuse now, before an upload is read, what would be refused after it.

        Raises:
            OverloadedError: As many sessions are open as the gateway serves, or serves this key.
            DrainingError: The gateway is stopping.

        """
        if self.draining.is_set():
            raise DrainingError("the gateway is stopping")
        self._slots.check()
        self._slots_of(caller).check()

    @asynccontextmanager
    async def session(
        self, config: SessionConfig, *, admitted: bool = False
    ) -> AsyncIterator[Session]:
        """Open a session and hold its slot for the length of the ``async with`` block.

        Args:
            config: What it is to do.
            admitted: Whether it goes on in place of another one, and so waits for a recogniser that
                has room, as that one would have.

        Raises:
            NotFoundError: No pool serves the model.
            InvalidRequestError: The model lacks the language or the task, or the translator the
                language.
            OverloadedError: As many sessions are open as the gateway serves, or serves this key, or
                the recognisers have no room.
            DrainingError: The gateway is stopping.
            UpstreamError: No recogniser has been reached yet.

        """
        self.check_room(config.caller)
        pool, info = self.pools.choose(config.model)
        language = (config.language_code or self.settings.language).partition("-")[0].lower()
        info.check(language, config.task)
        resolved = replace(config, model=info.name, language_code=language)
        with (
            self._slots.hold(),
            self._slots_of(config.caller).hold(),
            telemetry.SESSIONS.labels(config.protocol).track_inprogress(),
        ):
            limits = self._limits(config.pace)
            session = Session(
                resolved,
                limits,
                vad=self._vad,
                asr=pool.link,
                diarizer=self._diarizer,
                translator=self._translator,
            )
            self.open_by_pace[config.pace] += 1
            try:
                if not admitted:
                    await session.admit()
                yield session
            finally:
                self.open_by_pace[config.pace] -= 1
                session.close()
                self._left.ring()

    def _slots_of(self, caller: str) -> Slots:
        limit = self.settings.max_sessions_per_key if caller else 0
        return self._slots_by_key.setdefault(caller, Slots(limit or self.settings.max_sessions))

    def models(self) -> Sequence[ModelInfo]:
        """What can be asked for now, the default first."""
        return self.pools.models

    async def ready(self) -> dict[str, bool]:
        """Whether each stage that sessions cannot do without answers its health check."""
        vad, asr = await asyncio.gather(
            serves(self._vad.channel, _VAD_SERVICE, timeout_s=_PROBE_S),
            self.pools.default.ready(timeout_s=_PROBE_S),
        )
        return {"vad": vad, "asr": asr}

    async def healthy(self) -> bool:
        """Whether a new session would be served now."""
        return not self.draining.is_set() and all((await self.ready()).values())

    async def drain(self, timeout_s: float) -> None:
        """Take no new sessions, and return when those that are open have ended, or in time.

        Half of the time is for sessions to end by themselves. Then live ones are ended, so that
        their last words still arrive.
        """
        self.draining.set()
        await self._emptied(timeout_s / 2)
        self.closing.set()
        await self._emptied(timeout_s / 2)

    async def _emptied(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.open_sessions:
                    await self._left.wait()

    async def run(self) -> None:
        """Do what is done besides serving, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.pools.discover(), name="gateway.discover")
            tasks.create_task(self.keys.watch(), name="gateway.keys")
            if self._identity is not None:
                tasks.create_task(self._identity.watch(), name="gateway.identity")
            tasks.create_task(self.resumption.run(), name="gateway.resumption")

    async def close(self) -> None:
        """Close every channel."""
        links = [link for link in (self._vad, self._diarizer, self._translator) if link]
        await asyncio.gather(*(link.close() for link in links), self.pools.close())

    def _limits(self, pace: Pace) -> SessionLimits:
        settings = self.settings
        live = pace is Pace.LIVE
        stall_s = settings.stall_s if live else settings.file_stall_s

        def patience(lost_s: float) -> Patience:
            return Patience(settings.open_timeout_s, settings.hedge_s, stall_s, lost_s)

        return SessionLimits(
            ring_samples=samples(settings.ring_s),
            max_samples=samples(settings.max_session_s if live else settings.max_file_s),
            pre_roll_samples=samples_of_ms(settings.pre_roll_ms),
            vad_patience=patience(settings.vad_patience_s),
            asr_patience=patience(settings.asr_patience_s),
            diarizer_patience=patience(settings.diarizer_patience_s),
            # Nobody waits for a recording, which waits its turn behind live audio.
            word_wait_s=settings.speaker_wait_s if live else stall_s,
            # The words are few, and kept: a translator that is back goes on where it was lost.
            translator_patience=patience(settings.max_session_s),
            translation_wait_s=settings.translation_wait_s if live else stall_s,
        )
