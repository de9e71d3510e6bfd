"""Faults at random moments while many clients speak: ``python -m tests.robustness.chaos``.

Every client is ours, resumes what breaks, and plays the same marked speech through a proxy whose
connections may be cut. The seed decides who is hit, how and when; it is printed, and gives the same
faults again.
"""

import argparse
import asyncio
import itertools
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from bench.corpus import recordings, two_cities
from bench.report import quantiles
from bench.score import Tally, compare
from services.cli import resuming
from services.common.channel import open_channel
from services.common.models import locate
from services.common.timeline import SAMPLE_RATE_HZ
from services.common.words import Word
from services.gateway.tasks import first_error
from tests.mesh.asr import pcm_of
from tests.robustness.fleet import Fleet
from tests.robustness.history import History, Told, violations
from tests.robustness.marks import NUM_SPEAKERS, mark, save, script_for
from tests.robustness.proxy import Proxy
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

_FRAME_S = 0.1
_ANSWER_S = 60.0
"""How long a session may take after the end of its audio."""
_SLOW_S = 5.0
_STOPPED_S, _RUNNING_S = 0.2, 0.05
"""A slow replica stops and runs for so long in turn."""
_STAGGER_S = 0.37
"""Between the first words of two clients."""

FAULTS = ("kill", "drain", "freeze", "slow", "cut")
"""SIGKILL or SIGTERM for a replica, SIGSTOP and later SIGCONT, both many times in a few seconds,
all client connections cut. ``roll`` is SIGTERM for every replica in turn, each once the one before
it is back."""


@dataclass(frozen=True, slots=True)
class Speech:
    """Audio whose words are known."""

    pcm: bytes
    """s16le, 16 kHz, mono."""
    script: Sequence[Word] = ()
    """What is hidden in it for a recogniser that always hears it; empty: a model is to hear it."""
    text: str = ""
    """What a model is to hear."""

    @property
    def duration_s(self) -> float:
        """How long it lasts."""
        return len(self.pcm) / 2 / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Session:
    """What somebody said, and what their client was told."""

    speech: Speech
    history: History


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    undisturbed: list[Session] = field(default_factory=list)
    """Before the first fault."""
    sessions: list[Session] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    hit: list[str] = field(default_factory=list)
    """Replicas that were killed, drained, frozen or slowed down."""
    killed_s: list[float] = field(default_factory=list)
    """When replicas were killed."""
    moved_s: list[float] = field(default_factory=list)
    """How long replicas that were told to stop still had streams."""

    @property
    def words(self) -> list[str] | None:
        """What every session has to say; None: a model may word it otherwise each time."""
        [undisturbed, *_] = self.undisturbed
        if not undisturbed.speech.script:
            return None
        return [word.text for word in undisturbed.history.words]

    @property
    def speakers(self) -> list[int]:
        """Who says each of them; empty: nobody is told apart."""
        [undisturbed, *_] = self.undisturbed
        return undisturbed.history.diarized if undisturbed.speech.script else []

    @property
    def violations(self) -> list[str]:
        """What was not as promised."""
        return [
            f"session {number}: {violation}"
            for number, session in enumerate(self.sessions)
            for violation in violations(
                session.history,
                self.words,
                self.speakers,
                translated=bool(session.speech.script),
            )
        ]

    def next_commits_s(self) -> list[float]:
        """How long after each kill each session that still spoke committed something again."""
        return [
            min(later) - killed
            for killed in self.killed_s
            for commits_s in (session.history.commits_s for session in self.sessions)
            if (later := [at for at in commits_s if at > killed])
            and any(at < killed for at in commits_s)
        ]


def wer_percent(sessions: Sequence[Session]) -> float:
    """Word error rate of sessions with a model."""
    tallies = [
        compare(session.speech.text, session.history.text, "en").tally for session in sessions
    ]
    return round(sum(tallies, start=Tally()).wer_percent, 2)


def marked_speech() -> Speech:
    """44 s of real speech with a script hidden in it."""
    pcm = pcm_of(locate("speech") / "two_cities.wav")
    script = script_for(pcm)
    return Speech(mark(pcm, script), script)


def read_speech(manifest: Path | None) -> list[Speech]:
    """Speech for a model: recordings, or the same 44 s."""
    found = [two_cities()] if manifest is None else recordings(manifest)
    return [Speech(clip.pcm, text=clip.text) for clip in (one.clip() for one in found)]


async def speak(target: str, speech: Speech, *, speed: float) -> Session:
    """Hold one session to its end; while there is no room for it, try again."""
    while True:
        session = Session(speech, History())
        try:
            with first_error():
                await _hold(session, target, speed=speed)
        except grpc.aio.AioRpcError as error:
            refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            if not refused or session.history.told:
                raise
            await asyncio.sleep(1)
        else:
            return session


async def _hold(session: Session, target: str, *, speed: float) -> None:
    speech, history = session.speech, session.history

    def hear(answer: pb.ConverseResponse) -> None:
        history.told.append(Told(time.monotonic(), answer))

    outbox = resuming.Outbox()

    async def play() -> None:
        size = round(_FRAME_S * SAMPLE_RATE_HZ) * 2
        began = time.monotonic()
        for number, start in enumerate(range(0, len(speech.pcm), size), 1):
            await asyncio.sleep(began + number * _FRAME_S / speed - time.monotonic())
            outbox.add(speech.pcm[start : start + size])
        outbox.end()

    opening = pb.Open(encoding=pb.ENCODING_LINEAR16, language_code="en")
    if speech.script:
        opening.diarization.max_speakers = NUM_SPEAKERS
        opening.translate_into.language_codes.append("pt")
    async with (
        open_channel(target) as channel,
        asyncio.timeout(speech.duration_s / speed + _ANSWER_S),
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(play(), name="chaos.play")
        await resuming.converse(rpc.GatewayServiceStub(channel), opening, outbox, hear)


async def chaos(
    speeches: Sequence[Speech],
    *,
    seed: int,
    duration_s: float,
    every_s: float,
    sessions: int = 8,
    speed: float = 1.0,
    faults: Sequence[str] = FAULTS,
    frozen_s: float = 15.0,
    model: str = "",
    speakers: bool = True,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Run a fleet, let clients speak, and hit it.

    Args:
        speeches: What clients say one after the other, while there is time; with a script, one.
        seed: Decides the faults.
        duration_s: For how long there are faults, in seconds; sessions that are open then end.
        every_s: Mean time between two of them, in seconds.
        sessions: Clients that speak at once.
        speed: Seconds of audio in a second.
        faults: Which of ``FAULTS`` there are.
        frozen_s: A frozen replica thaws after so long: by then its streams have moved on.
        model: Hears speech without a script.
        speakers: Whether there are diarizers for speech with one. Words then wait for them.
        report: Is told in a line of every fault.

    """
    rng = random.Random(seed)
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="voxmesh-chaos-") as name:
        folder = Path(name)
        script = folder / "script.json"
        save(speeches[0].script, script)
        fleet = (
            Fleet(folder, model=model)
            if model
            else Fleet(folder, script=script, diarizers=speakers, translators=True)
        )

        async def work() -> None:
            outcome.undisturbed = await (
                clients(fleet.grpc_target, sessions, turns=2, speed=speed)
                if model
                else clients(fleet.grpc_target, 1, turns=1, speed=max(speed, 2.0))
            )
            proxy = Proxy(fleet.grpc_port)
            until = time.monotonic() + duration_s
            async with proxy.listening() as port, asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    _hit(fleet, proxy, outcome, rng, until, every_s, faults, frozen_s, report),
                    name="chaos.hit",
                )
                target = f"127.0.0.1:{port}"
                outcome.sessions = await clients(target, sessions, until=until, speed=speed)

        async def clients(
            target: str, number: int, *, turns: int = 0, until: float = 0.0, speed: float
        ) -> list[Session]:
            """Let clients speak, each so often, or until some time."""
            done: list[Session] = []

            async def client(first: int) -> None:
                await asyncio.sleep(first * _STAGGER_S)
                for turn in itertools.count(1):
                    speech = speeches[(first + turn) % len(speeches)]
                    done.append(await speak(target, speech, speed=speed))
                    if turn == turns or (not turns and time.monotonic() > until):
                        return

            async with asyncio.TaskGroup() as tasks:
                for first in range(number):
                    tasks.create_task(client(first), name=f"chaos.client.{first}")
            return done

        await fleet.run(work)
    return outcome


async def _hit(
    fleet: Fleet,
    proxy: Proxy,
    outcome: Outcome,
    rng: random.Random,
    until: float,
    every_s: float,
    faults: Sequence[str],
    frozen_s: float,
    report: Callable[[str], None],
) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as lasting:
        while True:
            await asyncio.sleep(rng.uniform(0.5, 1.5) * every_s)
            fault, place = rng.choice(faults), rng.random()
            if time.monotonic() > until:
                return
            outcome.faults[fault] += 1
            if fault == "cut":
                proxy.cut()
                report(f"{time.monotonic() - began:6.1f} s: cut")
                continue
            name = sorted(fleet.workers)[int(place * len(fleet.workers))]
            outcome.hit.append(name)
            report(f"{time.monotonic() - began:6.1f} s: {fault} {name}")
            match fault:
                case "kill":
                    outcome.killed_s.append(time.monotonic())
                    fleet.send(name, signal.SIGKILL)
                case "drain":
                    lasting.create_task(_drain(fleet, name, outcome), name="chaos.drain")
                case "freeze":
                    lasting.create_task(_freeze(fleet, name, frozen_s), name="chaos.freeze")
                case "slow":
                    lasting.create_task(_slow(fleet, name), name="chaos.slow")
                case "roll":
                    await _roll(fleet, outcome)


async def _drain(fleet: Fleet, name: str, outcome: Outcome) -> None:
    began, pid = time.monotonic(), fleet.pid(name)
    fleet.send(name, signal.SIGTERM)
    while fleet.pid(name) == pid:  # noqa: ASYNC110 -- nobody says when a process is gone
        await asyncio.sleep(0.05)
    outcome.moved_s.append(time.monotonic() - began)


async def _roll(fleet: Fleet, outcome: Outcome) -> None:
    for name in sorted(fleet.workers):
        await _drain(fleet, name, outcome)
        while not await fleet.serves(name):  # noqa: ASYNC110 -- nobody says when it is back
            await asyncio.sleep(0.1)


async def _freeze(fleet: Fleet, name: str, frozen_s: float) -> None:
    pid = fleet.pid(name)
    fleet.send(name, signal.SIGSTOP)
    await asyncio.sleep(frozen_s)
    if fleet.pid(name) == pid:
        fleet.send(name, signal.SIGCONT)


async def _slow(fleet: Fleet, name: str) -> None:
    until = time.monotonic() + _SLOW_S
    while time.monotonic() < until:
        await _freeze(fleet, name, _STOPPED_S)
        await asyncio.sleep(_RUNNING_S)


def main() -> None:
    """Run for as long as asked; the exit code says whether everything was as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two faults")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--faults", nargs="+", choices=(*FAULTS, "roll"), default=FAULTS)
    parser.add_argument("--frozen", type=float, default=15.0, help="seconds until a replica thaws")
    parser.add_argument("--model", default="", help="a real one, such as tiny.en")
    parser.add_argument(
        "--no-speakers", dest="speakers", action="store_false", help="no diarizers to wait for"
    )
    parser.add_argument("--manifest", type=Path, help="what is said to it; default: 44 s of speech")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    outcome = asyncio.run(
        chaos(
            read_speech(chosen.manifest) if chosen.model else [marked_speech()],
            seed=chosen.seed,
            duration_s=60 * chosen.minutes,
            every_s=chosen.every,
            sessions=chosen.sessions,
            faults=chosen.faults,
            frozen_s=chosen.frozen,
            model=chosen.model,
            speakers=chosen.speakers,
        )
    )
    print(f"{len(outcome.sessions)} sessions, faults: {dict(outcome.faults)}")
    print(f"next commit after a kill, in s: {quantiles(outcome.next_commits_s())}")
    print(f"replicas told to stop had streams for, in s: {quantiles(outcome.moved_s)}")
    if chosen.model:
        before, after = wer_percent(outcome.undisturbed), wer_percent(outcome.sessions)
        print(f"word error rate: {before} % undisturbed, {after} % when hit")
    print("\n".join(outcome.violations) or "everything was as promised")
    raise SystemExit(bool(outcome.violations))


if __name__ == "__main__":
    main()
