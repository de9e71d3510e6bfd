"""The ``voxmesh`` command."""

from typing import Annotated

import typer

from services.cli import console, download
from services.common.models import ModelError

app = typer.Typer(
    name="voxmesh",
    help="A self-hosted mesh for live speech.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def voxmesh() -> None:
    """A self-hosted mesh for live speech."""


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(help="Models to fetch, as `voxmesh models` lists.")],
    source: Annotated[
        download.Source, typer.Option(help="Where from; auto: Hugging Face, then the mirror.")
    ] = "auto",
) -> None:
    """Fetch models and verify every byte of them."""
    with console.PullProgress() as bars:
        for name in names:
            try:
                folder = download.pull(name, bars, source=source)
            except ModelError as error:
                console.fail(str(error))
            bars.say(f"{name}: {folder}")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
