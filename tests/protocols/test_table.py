from tests.protocols.matrix import ROWS, TRAPS
from tests.protocols.table import TABLE, marks, render


def test_every_row_has_a_test_or_a_reason_and_every_trap_a_test() -> None:
    shown = set(marks())
    not_run = {row.name for row in ROWS if row.not_run}
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert shown == {row.name for row in ROWS} - not_run | set(range(1, len(TRAPS) + 1))


def test_the_table_is_current() -> None:
    assert TABLE.read_text() == render(marks()), "python -m tests.protocols.table"
