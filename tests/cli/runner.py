"""Running the command inside the test's own process."""

from typer.testing import CliRunner, Result

from services.cli.__main__ import app


def voxmesh(*arguments: str) -> Result:
    """What ``voxmesh`` with these arguments says, and its exit code."""
    return CliRunner().invoke(app, arguments)


def said(result: Result) -> str:
    """Its output without the line breaks of a terminal."""
    return " ".join(result.output.split())
