import asyncio
from pathlib import Path

import pytest

from services.common import watched
from services.common.watched import FileError, Watched
from tests.settings.serving import until


class Reader:
    """Reads a file, and counts how often it was asked to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_text("first")
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        text = self.path.read_text()
        if text == "broken":
            raise FileError("it is broken")
        return text


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_LOOK_EVERY_S", 0.01)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "file")


async def test_a_change_is_read_and_what_cannot_be_read_changes_nothing(reader: Reader) -> None:
    file = Watched((reader.path,), reader)
    watch = asyncio.create_task(file.watch())
    assert file.content == "first"
    reader.path.write_text("broken")
    await until(lambda: reader.reads == 2)
    assert file.content == "first"
    reader.path.write_text("second")
    await until(lambda: file.content == "second")
    watch.cancel()


async def test_a_file_that_is_replaced_by_another_has_changed(
    reader: Reader, tmp_path: Path
) -> None:
    file = Watched((reader.path,), reader)
    watch = asyncio.create_task(file.watch())
    other = Reader(tmp_path / "other").path
    other.write_text("other")
    other.replace(reader.path)
    await until(lambda: file.content == "other")
    watch.cancel()


async def test_a_change_while_it_is_read_is_a_change(reader: Reader) -> None:
    def read() -> str:
        text = reader()
        if text == "first":
            reader.path.write_text("behind its back")
        return text

    file = Watched((reader.path,), read)
    assert file.content == "first"
    watch = asyncio.create_task(file.watch())
    await until(lambda: file.content == "behind its back")
    watch.cancel()


async def test_files_are_read_again_when_any_of_them_changes_and_not_before(
    reader: Reader, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    file = Watched((reader.path, other), reader)
    watch = asyncio.create_task(file.watch())
    await asyncio.sleep(0.1)  # it has been looked at
    assert reader.reads == 1
    other.touch()
    await until(lambda: reader.reads == 2)
    watch.cancel()


def test_what_cannot_be_read_at_first_is_an_error(reader: Reader) -> None:
    reader.path.write_text("broken")
    with pytest.raises(FileError, match="it is broken"):
        Watched((reader.path,), reader)
