"""``voxmesh check``: whether everything is here that the mesh needs, and whole."""

import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

import psutil
from packaging.requirements import Requirement

from services.cli.mesh import MeshOptions, PortError
from services.common.models import ModelError, installed, models_dir, verify

State: TypeAlias = Literal["ok", "note", "wrong"]

_EXTRAS = ("", "vad", "asr", "diarizer", "translator", "gateway", "cli", "tracing")
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
_LEAST_DISK_BYTES = 1_000_000_000
_LEAST_MEMORY_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str
    """What was found and, if it is wrong, what to do."""


def findings() -> Iterator[Finding]:
    """Look at everything, the cheap things first."""
    yield _python()
    yield from _packages()
    yield _cpu()
    yield _cuda()
    yield _memory()
    yield _disk()
    yield _ports()
    yield from _models()


def missing_for(extras: Sequence[str]) -> str:
    """What must be installed before these extras work, as a sentence; empty: nothing."""
    wrong = [finding for finding in _packages(extras) if finding.state == "wrong"]
    return "; ".join(finding.detail for finding in wrong)


def _python() -> Finding:
    where = f"on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", f"{platform.python_version()} {where}")


def _packages(extras: Sequence[str] = _EXTRAS) -> Iterator[Finding]:
    """What each extra asks for, against what is installed."""
    wanted = [Requirement(text) for text in metadata.requires("voxmesh") or ()]
    for extra in extras:
        mine = [one for one in wanted if _belongs(one, extra)]
        problems = [problem for one in mine if (problem := _problem(one))]
        name = f"packages for {extra}" if extra else "packages"
        if problems:
            # Spans are off by default; everything else is needed to serve.
            state: State = "note" if extra == "tracing" else "wrong"
            install = f"voxmesh[{extra}]" if extra else "voxmesh"
            yield Finding(name, state, f"{', '.join(problems)}: pip install '{install}'")
        else:
            yield Finding(name, "ok", ", ".join(_installed(one) for one in mine))


def _belongs(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    with_extra = requirement.marker.evaluate({"extra": extra})
    without = requirement.marker.evaluate({"extra": ""})
    return with_extra and (not extra or not without)


def _problem(requirement: Requirement) -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} is not {requirement.specifier}"
    return ""


def _installed(requirement: Requirement) -> str:
    return f"{requirement.name} {metadata.version(requirement.name)}"


def _cpu() -> Finding:
    cores = psutil.cpu_count(logical=False) or 0
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    flags = [flag for flag in _CPU_FLAGS if flag in words]
    detail = f"{cores} cores, {psutil.cpu_count()} threads, {' '.join(flags) or 'flags unknown'}"
    return Finding("cpu", "ok", detail)


def _cuda() -> Finding:
    try:
        # Part of the [asr] extra, and slow to import.
        import ctranslate2
    except ImportError:
        return Finding("gpu", "note", "unknown without the [asr] extra")
    count = ctranslate2.get_cuda_device_count()
    types = ", ".join(sorted(ctranslate2.get_supported_compute_types("cuda" if count else "cpu")))
    device = f"{count} CUDA devices" if count else "no CUDA device; the CPU"
    return Finding("gpu", "ok", f"{device} computes in {types}")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    low = free < _LEAST_MEMORY_BYTES
    advice = ": the base model wants 1 GB, larger ones more" if low else ""
    return Finding("memory", "note" if low else "ok", f"{free / 1e9:.1f} GB available{advice}")


def _disk() -> Finding:
    folder = models_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    low = free < _LEAST_DISK_BYTES
    advice = ": make room, or set VOXMESH_MODELS to another disk" if low else ""
    detail = f"{free / 1e9:.1f} GB free for {folder}{advice}"
    return Finding("disk", "note" if low else "ok", detail)


def _ports() -> Finding:
    options = MeshOptions()
    try:
        options.with_free_ports()
    except PortError as error:
        return Finding("ports", "note", str(error))
    return Finding("ports", "ok", f"{options.port} and {options.grpc_port} are free")


def _models() -> Iterator[Finding]:
    """Every installed model, read in full."""
    whole = installed()
    for model in whole:
        try:
            verify(model, models_dir() / model.name)
        except ModelError as error:
            yield Finding(f"model {model.name}", "wrong", f"{error}: voxmesh pull {model.name}")
        else:
            detail = f"{len(model.files)} files, {model.num_bytes / 1e6:.0f} MB, hashes agree"
            yield Finding(f"model {model.name}", "ok", detail)
    if not any(model.kind == "asr" for model in whole):
        yield Finding("models", "note", "none to recognise speech with: voxmesh pull base")
