"""Writes docs/conformance.md: ``python -m tests.protocols.table``."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tests.protocols.matrix import ROWS, TRAPS, Row

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "conformance.md"
_ENVIRONMENTS = Path(__file__).parent / "envs"

_HEAD = """\
# Conformance

Which clients are tried, unmodified and in which version, and what they observe. It is generated:
the rows are in `tests/protocols/matrix.py`, the versions are those that `tests/protocols/envs/`
pins, and each test says which rows and traps it is for. *Passes* means that a test asserts what the
row says; all of them run before every merge. `python -m tests.protocols.table` writes this file,
and a test compares it.

A test in `tests/protocols/` runs the client against the real services, on real speech; one in
`tests/gateway/` against a gateway whose stages follow a script.
"""


class Shown(NamedTuple):
    """A test that names rows or traps."""

    path: Path
    name: str

    def __str__(self) -> str:
        return f"[`{self.name}`](../{self.path.relative_to(ROOT)})"


Marks: TypeAlias = dict[str | int, list[Shown]]


def marks() -> Marks:
    """Tests by the names of rows and the numbers of traps with which they are marked."""
    found: Marks = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in _marked(node.decorator_list):
                    found[mark].append(Shown(path, node.name))
    return found


def _marked(decorators: Iterable[ast.expr]) -> Iterator[str | int]:
    for decorator in decorators:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in {
            "pytest.mark.row",
            "pytest.mark.trap",
        }:
            for argument in decorator.args:
                yield ast.literal_eval(argument)


def client_of(environment: str) -> str:
    """The SDK that an environment is there for, and its version."""
    if (package := _ENVIRONMENTS / environment / "package.json").exists():
        name, version = next(iter(json.loads(package.read_text())["dependencies"].items()))
        return f"{name} {version} (npm)"
    asked = (_ENVIRONMENTS / f"{environment}.in").read_text().split()[0]
    name, version = re.sub(r"\[.*\]", "", asked).split("==")
    return f"{name} {version}"


def _client(row: Row) -> str:
    return re.sub(r"\{([\w-]+)\}", lambda named: client_of(named[1]), row.client)


def _result(row: Row) -> str:
    if row.not_run:
        return f"not run: {row.not_run}"
    if row.waits_for:
        return f"waits for {row.waits_for}; the rest passes"
    return f"passes, but {row.unless}" if row.unless else "passes"


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def render(marked: Marks) -> str:
    """The page, with the tests for every row and every trap."""

    def tests(mark: str | int) -> str:
        return ", ".join(map(str, marked.get(mark, ())))

    return "\n".join(
        [
            _HEAD,
            _line("", "client", "observes", "result", "shown by"),
            "|---|---|---|---|---|",
            *(
                _line(row.name, _client(row), row.observed, _result(row), tests(row.name))
                for row in ROWS
            ),
            "",
            "## Traps",
            "",
            "What breaks clients, and most of them first.",
            "",
            _line("", "trap", "avoided, as shown by"),
            "|---|---|---|",
            *(_line(number, trap, tests(number)) for number, trap in enumerate(TRAPS, 1)),
            "",
        ]
    )


if __name__ == "__main__":
    TABLE.write_text(render(marks()))
