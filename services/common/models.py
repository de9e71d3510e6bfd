"""Installed models: where they lie, whether they are whole.

Services only locate models; fetching them is the work of the ``voxmesh`` command. An installed
model is a folder ``<models dir>/<name>`` that holds the files of its entry in the catalogue.
"""

import hashlib
import os
import shutil
from pathlib import Path

from services.common.catalogue import CATALOGUE, Model


class ModelError(Exception):
    """Base of what can be wrong with a model; the message says what to do about it."""


class ModelMissingError(ModelError):
    """The model is not installed, or only in part."""


class ModelCorruptError(ModelError):
    """A file of the model is not the file that the catalogue lists."""


def models_dir() -> Path:
    """Where models lie: ``VOXMESH_MODELS``, else ``voxmesh/models`` in the user's cache folder."""
    if chosen := os.environ.get("VOXMESH_MODELS"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "voxmesh" / "models"


def entry(name: str) -> Model:
    """The catalogue's entry of a name.

    Raises:
        ModelMissingError: The catalogue has no such model.

    """
    if name not in CATALOGUE:
        known = ", ".join(CATALOGUE)
        raise ModelMissingError(f"no model is called {name!r}; `voxmesh models` lists: {known}")
    return CATALOGUE[name]


def locate(name: str, root: Path | None = None) -> Path:
    """The folder that holds an installed model, or the path of one's own.

    Checks that every file is there with its size, which costs no reading; ``verify`` reads.

    Args:
        name: A name of the catalogue, or the path of a model of one's own.
        root: The models folder; unset: ``models_dir()``.

    Raises:
        ModelMissingError: It is not installed; the message names the command that installs it.

    """
    if name not in CATALOGUE and Path(name).expanduser().exists():
        return Path(name).expanduser()
    model = entry(name)
    folder = (root or models_dir()) / name
    for file in model.files:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.num_bytes:
            state = "is incomplete" if folder.exists() else "is not installed"
            raise ModelMissingError(
                f"model {name!r} {state} in {folder.parent}: run `voxmesh pull {name}`"
            )
    return folder


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(model: Model, folder: Path) -> None:
    """Read every file of a model and compare it with the catalogue.

    Raises:
        ModelMissingError: A file is not there.
        ModelCorruptError: A file has another content; the message says which, and both hashes.

    """
    for file in model.files:
        path = folder / file.name
        if not path.is_file():
            raise ModelMissingError(f"{path} is missing: run `voxmesh pull {model.name}`")
        found = sha256_of(path)
        if found != file.sha256:
            raise ModelCorruptError(
                f"{path} is not the file it should be:"
                f" expected sha256 {file.sha256}, found {found}"
                f" ({path.stat().st_size} of {file.num_bytes} bytes)"
            )


def installed(root: Path | None = None) -> list[Model]:
    """The models of the catalogue that ``locate`` finds, in the catalogue's order."""
    found = []
    for model in CATALOGUE.values():
        try:
            locate(model.name, root)
        except ModelMissingError:
            continue
        found.append(model)
    return found


def remove(name: str, root: Path | None = None) -> int:
    """Delete an installed model and say how many bytes that freed.

    Raises:
        ModelMissingError: Nothing of it is installed.

    """
    folder = (root or models_dir()) / entry(name).name
    if not folder.is_dir():
        raise ModelMissingError(f"model {name!r} is not installed in {folder.parent}")
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return freed
