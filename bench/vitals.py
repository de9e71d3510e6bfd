"""What the processes of a mesh hold at a moment."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.mesh import SERVICES, Served

_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the process of one service holds."""

    memory_mb: float
    """Resident for it and for no other."""
    files: int
    """File descriptors."""
    threads: int
    tasks: int
    """Of its event loop."""
    streams: int
    """Open: sessions of the gateway, streams of another service."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What all services held at a moment."""

    at_min: float
    """Since the first reading."""
    services: Mapping[str, Vitals]

    @property
    def streams(self) -> int:
        """Sessions and streams that are open anywhere."""
        return sum(vitals.streams for vitals in self.services.values())

    def row(self) -> dict[str, Any]:
        """As results are written."""
        return asdict(self)


class Monitor:
    """Reads what the services of a mesh hold."""

    def __init__(self, mesh: Served) -> None:
        self._metrics_urls = mesh.metrics_urls
        self._processes = {name: mesh.service(name) for name in SERVICES}

    def read(self) -> dict[str, Vitals]:
        """What each service holds now; takes some tens of milliseconds.

        Raises:
            psutil.NoSuchProcess: A service has died, even if it was started again.

        """
        return {name: self._vitals(name, process) for name, process in self._processes.items()}

    def _vitals(self, name: str, process: psutil.Process) -> Vitals:
        # Before the metrics are asked for: serving them takes a thread and a file.
        memory_mb = round(process.memory_full_info().uss / 1e6, 1)
        files, threads = process.num_fds(), process.num_threads()
        shown = metrics(
            httpx.get(
                self._metrics_urls[name], trust_env=False, verify=False, timeout=_ANSWER_S
            ).text
        )
        open_now = shown["voxmesh_sessions" if name == "gateway" else "voxmesh_streams"]
        return Vitals(memory_mb, files, threads, int(shown["voxmesh_tasks"]), int(open_now))


def metrics(text: str) -> dict[str, float]:
    """Sums of the samples of each metric, whatever their labels, by name; 0: there are none."""
    return {
        family.name: sum(
            (sample.value for sample in family.samples if sample.name == family.name), 0.0
        )
        for family in text_string_to_metric_families(text)
    }
