"""``voxmesh demo``: a recording through the mesh, captions as they come, numbers at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.cli import console
from services.cli.live import HeardPiece, HeardWord, Recording, Session, Transcript, converse
from services.cli.mesh import Mesh

_LINE_CHARS = 72


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a mesh have used."""

    cpu_s: dict[str, float]
    memory_bytes: dict[str, int]


class Captions:
    """Captions that grow: a line is printed when enough was committed, and never taken back."""

    def __init__(self, out: Console, mark: str = "") -> None:
        """Print to a console, with a mark between the time and the text of each line."""
        self._out = out
        self._mark = mark
        self._line: list[HeardWord | HeardPiece] = []

    def show(self, new: Sequence[HeardWord | HeardPiece]) -> None:
        """Print the lines that are complete."""
        for part in new:
            self._line.append(part)
            text = self._text
            if len(text) >= _LINE_CHARS or text.endswith((".", "?", "!")):
                self.flush()

    def growing(self, tail: str) -> Text:
        """The line that is not complete: what is committed plain, the tail dim."""
        text = Text(f"{'':10}{self._mark}{self._text}")
        return text + Text(tail if self._text else tail.lstrip(), "dim")

    def flush(self) -> None:
        """Print what is left."""
        if self._line:
            line = f"{self._line[-1].end_s:6.1f} s  {self._mark}{self._text}"
            self._out.print(line, markup=False)
            self._line = []

    @property
    def _text(self) -> str:
        return "".join(part.text for part in self._line).strip()


async def play(
    mesh: Mesh, recording: Recording, *, language: str, translate_into: str, speed: float
) -> None:
    """Stream a recording into a running mesh, show its captions and then the numbers."""
    before = usage(mesh)
    # Not the console of results: that one does not wrap, and a live region must.
    screen = Console(highlight=False) if console.out.is_terminal else console.out
    captions = Captions(screen)
    translation = Captions(screen, f"{translate_into}: ")
    with Live(console=screen, auto_refresh=False, transient=True) as live:

        def draw(transcript: Transcript) -> None:
            if screen.is_terminal:
                lines = [captions.growing(transcript.tail)]
                if translate_into:
                    lines.append(translation.growing(transcript.translated_tail))
                live.update(Group(*lines), refresh=True)

        def hear(transcript: Transcript, new: list[HeardWord]) -> None:
            captions.show(new)
            draw(transcript)

        def translate(transcript: Transcript, new: list[HeardPiece]) -> None:
            translation.show(new)
            draw(transcript)

        session = await converse(
            mesh.grpc_target,
            recording,
            language=language,
            translate_into=translate_into,
            speed=speed,
            on_captions=hear,
            on_translated=translate,
        )
    captions.flush()
    translation.flush()
    after = usage(mesh)
    factor = await real_time_factor(mesh.metrics_url("asr"))
    console.out.print()
    title = f"{session.model}, {session.audio_s:.1f} s of audio at {speed:g}x"
    console.out.print(report(title, session, before, after, factor))


def usage(mesh: Mesh) -> Usage:
    """CPU time and resident memory of every process of a mesh, now."""
    cpu_s, memory_bytes = {}, {}
    for name, pid in mesh.supervisor.pids.items():
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            cpu_s[name] = times.user + times.system
            memory_bytes[name] = process.memory_info().rss
    return Usage(cpu_s, memory_bytes)


async def real_time_factor(metrics_url: str) -> float | None:
    """Seconds the recogniser's model ran per second of audio it was given; None: unknown."""
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=5) as client:
        try:
            text = (await client.get(metrics_url)).text
        except httpx.HTTPError:
            return None
    totals = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("stage") == "asr"
    }
    audio_s = totals.get("voxmesh_audio_seconds_total", 0.0)
    return totals.get("voxmesh_model_seconds_total", 0.0) / audio_s if audio_s else None


def report(
    title: str, session: Session, before: Usage, after: Usage, factor: float | None
) -> Table:
    """The numbers of a session as a table of two columns."""
    words = session.transcript.words
    cpu_s = {name: after.cpu_s[name] - before.cpu_s.get(name, 0.0) for name in after.cpu_s}
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value")
    table.add_row("words", str(len(words)))
    if words:
        first = percentiles([word.first_delay_s for word in words])
        final = percentiles([word.final_delay_s for word in words])
        table.add_row("word first seen after it was spoken", _p50_p95(first))
        table.add_row("word final after it was spoken", _p50_p95(final))
    if pieces := session.transcript.pieces:
        delays = percentiles([piece.delay_s for piece in pieces])
        table.add_row("translation final after its last word", _p50_p95(delays))
    table.add_row("end of audio to end of session", f"{session.finish_s:.2f} s")
    if factor is not None:
        table.add_row("model time per second of speech (RTF)", f"{factor:.2f}")
    table.add_row("CPU time per second of audio", f"{sum(cpu_s.values()) / session.audio_s:.2f} s")
    for name, num_bytes in after.memory_bytes.items():
        used = f"{cpu_s[name]:.1f} s CPU, {num_bytes / 1e6:.0f} MB"
        table.add_row(f"  {name}", used)
    for notice in session.notices:
        table.add_row("notice", notice)
    return table


def percentiles(values: list[float]) -> tuple[float, float]:
    """The median and the 95th percentile."""
    if len(values) == 1:
        return values[0], values[0]
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[9], cuts[18]


def _p50_p95(pair: tuple[float, float]) -> str:
    return f"p50 {pair[0]:.2f} s, p95 {pair[1]:.2f} s"
