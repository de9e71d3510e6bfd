"""The lines by which a gateway knows its keys."""

import pytest

from services.common.keys import digest, line_of, parse


@pytest.mark.parametrize("name", ["alice", "bob@example.org", "jürgen", "a" * 64])
def test_a_line_says_the_name_and_not_the_key(name: str) -> None:
    line = line_of(name, "secret")
    assert "secret" not in line
    assert parse(f" {line}\n") == (name, digest("secret"))


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "a\nb"])
def test_a_name_that_a_line_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        line_of(name, "secret")


@pytest.mark.parametrize("line", ["", "alice", "alice secret", "alice " + "0" * 63])
def test_what_is_no_such_line_is_told_apart(line: str) -> None:
    assert parse(line) is None
