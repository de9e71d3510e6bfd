from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings, load, table


class Sample(ServiceSettings):
    """Settings to try."""

    model_config = SettingsConfigDict(env_prefix="SAMPLE_")

    folder: Path
    """Where things are."""
    chunk_ms: int = Field(default=320, ge=80, multiple_of=80)
    """How long a chunk is,
    in milliseconds."""
    token: SecretStr = SecretStr("")
    """Who may come in."""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_FOLDER", "here")


def test_settings_come_from_variables_with_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_CHUNK_MS", "160")
    monkeypatch.setenv("CHUNK_MS", "240")
    settings = load(Sample)
    assert (settings.folder, settings.chunk_ms, settings.log_level) == (Path("here"), 160, "info")


def test_settings_do_not_change() -> None:
    settings = load(Sample)
    with pytest.raises(ValidationError, match="frozen"):
        settings.chunk_ms = 80


def test_a_bad_value_ends_the_process_with_one_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMPLE_CHUNK_MS", "100")
    monkeypatch.setenv("SAMPLE_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as caught:
        load(Sample)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "SAMPLE_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error' (got 'loud')",
        "SAMPLE_CHUNK_MS: Input should be a multiple of 80 (got '100')",
    ]


def test_a_missing_value_is_named_and_nothing_else_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SAMPLE_FOLDER")
    monkeypatch.setenv("SAMPLE_TOKEN", "hunter2")
    with pytest.raises(SystemExit):
        load(Sample)
    assert capsys.readouterr().err == "SAMPLE_FOLDER: Field required\n"


def test_the_table_has_a_row_for_each_variable() -> None:
    rows = table(Sample).splitlines()
    assert rows[:2] == ["| variable | default | meaning |", "|---|---|---|"]
    assert len(rows) == 2 + len(Sample.model_fields)
    assert "| `SAMPLE_FOLDER` | required | Where things are. |" in rows
    chunk = "| `SAMPLE_CHUNK_MS` | `320` | How long a chunk is, in milliseconds. |"
    assert chunk in rows, "line breaks of the docstring are spaces"
    assert any(row.startswith("| `SAMPLE_OTLP_ENDPOINT` | empty |") for row in rows)
