"""P31: what the documentation claims to run, runs.

A fenced block after ``<!-- run -->`` is run as it stands; after ``<!-- run: served -->`` with a
mesh on the ports that the text names and the recording ``recording.wav`` at hand.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^<!-- run(?P<served>: served)? -->\n+```(?P<language>sh|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"^<!-- run", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@dataclass(frozen=True)
class Block:
    """A runnable block of a page."""

    page: Path
    line: int
    language: str
    served: bool
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("services/*/*.md"))
    if page.is_file()
]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text[: match.start()].count("\n") + 1,
            match["language"],
            match["served"] is not None,
            match["code"],
        )
        for match in _BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]


def run(block: Block, code: str, folder: Path) -> None:
    interpreter = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    result = subprocess.run(
        [*interpreter[block.language], code],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, f"{block} failed:\n{result.stdout}{result.stderr}"
    assert result.stdout.strip(), f"{block} said nothing"


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("block", [block for block in ALL if not block.served], ids=str)
def test_what_a_page_says_can_be_run_runs(block: Block, tmp_path: Path) -> None:
    run(block, block.code, tmp_path)


@pytest.mark.parametrize("block", [block for block in ALL if block.served], ids=str)
def test_what_a_page_says_of_a_running_mesh_is_so(
    block: Block, tmp_path: Path, mesh_tiny: "ServedMesh", speech: Path
) -> None:
    if "curl" in block.code and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shutil.copy(speech / "beckett.wav", tmp_path / "recording.wav")
    code = block.code.replace("127.0.0.1:8000", f"127.0.0.1:{mesh_tiny.port}")
    run(block, code.replace("127.0.0.1:50050", mesh_tiny.grpc_target), tmp_path)


def test_every_mark_stands_before_a_block_that_is_found() -> None:
    marks = sum(len(_MARK.findall(page.read_text(encoding="utf-8"))) for page in PAGES)
    assert len(ALL) == marks > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []
