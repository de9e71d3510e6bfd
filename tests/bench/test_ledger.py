from pathlib import Path

from bench.ledger import Ledger


def test_an_interrupted_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    first = Ledger("run", {"model": "base"}, folder=tmp_path)
    first.add("1/play/0", {"text": "to be"})
    first.add("1/sample/0", 3)
    again = Ledger("run", {"model": "base"}, folder=tmp_path)
    assert "1/play/0" in again
    assert again["1/play/0"] == {"text": "to be"}
    assert again.under("1/sample/") == [3]
    assert "2/play/0" not in again


def test_half_a_line_is_no_measurement_and_spoils_none_that_follow(tmp_path: Path) -> None:
    ledger = Ledger("run", {}, folder=tmp_path)
    ledger.add("a", 1)
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('["b", {"te')
    again = Ledger("run", {}, folder=tmp_path)
    assert "b" not in again
    again.add("c", 3)
    assert Ledger("run", {}, folder=tmp_path).under("") == [1, 3]


def test_another_subject_is_measured_anew(tmp_path: Path) -> None:
    Ledger("run", {"model": "base"}, folder=tmp_path).add("a", 1)
    assert "a" not in Ledger("run", {"model": "tiny.en"}, folder=tmp_path)


def test_a_finished_run_is_kept_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    ledger = Ledger("run", {}, folder=tmp_path)
    ledger.add("a", 1)
    ledger.close()
    assert "a" not in Ledger("run", {}, folder=tmp_path)
    assert '["a", 1]' in (tmp_path / "run.done.jsonl").read_text()
