"""The tables of README.md, rendered from the results: ``python -m bench.tables``."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"

Found = Mapping[str, Any]


def update() -> None:
    """Write the tables of all results into the README."""
    README.write_text(rendered(README.read_text()))


def rendered(text: str) -> str:
    """A README with its tables as the results have them."""
    for bench, table in _TABLES.items():
        blocks = [_heading(found) + table(found) for found in _results(bench)]
        text = _between(bench, "\n\n".join(blocks) if blocks else "Not measured yet.", text)
    return text


def _between(bench: str, body: str, text: str) -> str:
    """A text with something else between the markers of a bench."""
    opening, closing = f"<!-- {bench} -->\n", f"<!-- /{bench} -->"
    pattern = re.escape(opening) + ".*?" + re.escape(closing)
    return re.sub(pattern, lambda _: f"{opening}{body}\n{closing}", text, flags=re.DOTALL)


def _results(bench: str) -> list[Found]:
    return [
        {"name": path.stem, **json.loads(path.read_text())}
        for path in sorted(RESULTS.glob(f"{bench}-*.json"))
    ]


def _heading(found: Found) -> str:
    settings = " ".join(f"{name}={value}" for name, value in found["settings"].items())
    model = f"model {found['model']}" + (f" with `{settings}`" if settings else "")
    return (
        f"`results/{found['name']}.json`: {model}, measured on {found['measured']}.\n"
        f"{found['hardware']}.\n\n```sh\n.venv/bin/{found['command']}\n```\n\n"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The first column is text, the others are numbers."""
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.2f}"
        case _:
            return str(value)


def _some(values: Mapping[str, float], *percents: str) -> str:
    """Percentiles as ``1.02 / 2.40``."""
    return " / ".join(f"{values[percent]:.2f}" for percent in percents) if values else ""


def _accuracy(found: Found) -> str:
    codes = sorted(found["ways"][0]["by_language"])
    columns = ["way", "WER %", "words", "sub", "del", "ins", "repetitions"]
    columns += [f"WER {code}" for code in codes if len(codes) > 1]
    columns += ["word end error, p50 / p95 s", "CPU s per s"]
    rows = []
    for way in found["ways"]:
        row = [way["way"], way["wer_percent"], way["words"], way["substitutions"]]
        row += [way["deletions"], way["insertions"], way["repetitions"]]
        row += [way["by_language"][code]["wer_percent"] for code in codes if len(codes) > 1]
        rows.append([*row, _some(way["word_end_error_s"], "p50", "p95"), way["cpu_s_per_audio_s"]])
    return "\n\n".join(
        [_table(columns, rows), *_by_recording(found), *_silence(found["nobody_speaks"])]
    )


def _by_recording(found: Found) -> Iterable[str]:
    names = sorted(found["ways"][0]["by_recording"])
    if 1 < len(names) < 10:
        rows = [
            [way["way"], *(way["by_recording"][name] for name in names)] for way in found["ways"]
        ]
        yield _table(["WER % by recording", *names], rows)


def _silence(ways: Mapping[str, Any]) -> Iterable[str]:
    names = ("clips", "audio_s", "words", "words_per_minute")
    rows = [
        [f"{way}, {kind}", *(clips[name] for name in names)]
        for way, kinds in ways.items()
        for kind, clips in kinds.items()
    ]
    if rows:
        yield _table(["where nobody speaks", "clips", "s", "words", "words a minute"], rows)


_DELAYS = (
    ("first shown", "first_shown_s"),
    ("shown as it remained", "shown_as_it_remained_s"),
    ("final", "final_s"),
    ("pause to its last words final", "pause_to_final_s"),
    ("last word to final", "last_word_to_final_s"),
    ("`finish` to `finished`", "finish_to_finished_s"),
)


def _latency(found: Found) -> str:
    levels = found["levels"]
    columns = ["p50 / p95 / p99, s"] + [f"{level['sessions']} at once" for level in levels]
    rows: list[list[object]] = [
        [label, *(_some(level[key], "p50", "p95", "p99") for level in levels)]
        for label, key in _DELAYS
    ]
    rows.append(["words timed, of", *(f"{v['words_timed']}, {v['words_said']}" for v in levels)])
    rows.append(["WER %", *(level["wer_percent"] for level in levels)])
    rows.append(["CPU s per s", *(level["cpu_s_per_audio_s"] for level in levels)])
    return _table(columns, rows)


def _capacity(found: Found) -> str:
    columns = ["sessions", "final, p50 / p95 s", "first shown, p50 / p95 s", "WER %"]
    columns += ["refused", "CPU s per s", "cores", "MB", "MB per session"]
    names = ("wer_percent", "refused", "cpu_s_per_audio_s", "cores_used", "memory_mb")
    rows = [
        [
            level["sessions"],
            _some(level["final_s"], "p50", "p95"),
            _some(level["first_shown_s"], "p50", "p95"),
            *(level[name] for name in (*names, "memory_mb_per_session")),
        ]
        for level in found["levels"]
    ]
    carries = f"Carries {found['carries']} with p95 final within {found['bound_p95_final_s']:g} s."
    picture = f"![Delays, errors and cost by sessions](results/{found['name']}.png)"
    return f"{carries}\n\n{_table(columns, rows)}\n\n{_latency(found)}\n\n{picture}"


def _overload(found: Found) -> str:
    columns = ["arrivals", "plays refused, of", "refused after, p50 / p99 s"]
    columns += ["final, p50 / p95 s", "first shown, p50 / p95 s", "times the delay of one alone"]
    columns += ["WER %", "cores"]
    alone = found["levels"][0]["final_s"]["p50"]
    rows = [
        [
            level["sessions"],
            f"{level['refused']}, {level['plays']}",
            _some(level["refused_after_s"], "p50", "p99"),
            _some(level["final_s"], "p50", "p95"),
            _some(level["first_shown_s"], "p50", "p95"),
            level["final_s"]["p50"] / alone,
            level["wer_percent"],
            level["cores_used"],
        ]
        for level in found["levels"]
    ]
    return _table(columns, rows)


def _pauses(found: Found) -> str:
    lengths = found["by_length"]
    columns = ["pause"] + [f"{row['pause_s']:g} s" for row in lengths if row["kind"] == "zeros"]
    rows: list[list[object]] = []
    for kind in ("zeros", "noise"):
        own = [row for row in lengths if row["kind"] == kind]
        rows.append([f"{kind}: pauses", *(row["pauses"] for row in own)])
        rows.append([f"{kind}: words lost", *(row["lost"] for row in own)])
        rows.append([f"{kind}: words added", *(row["added"] for row in own)])
    whole = found["whole_texts"]
    columns_whole = ["whole texts", "WER %", "sub", "del", "ins", "repetitions"]
    names = ("wer_percent", "substitutions", "deletions", "insertions", "repetitions")
    rows_whole = [[kind, *(tally[name] for name in names)] for kind, tally in whole.items()]
    return f"{_table(columns, rows)}\n\n{_table(columns_whole, rows_whole)}"


def _growth(found: Found) -> str:
    columns = ["session", "WER %", "final, p50 / p95 s", "rise of final in an hour, s"]
    columns += ["CPU s per s, first and last fifth", "rise in an hour", "MB, first and last minute"]
    rows = []
    for session in found["sessions"]:
        minutes = session["minutes"]
        part = max(1, len(minutes) // 5)
        costs = [minute["cpu_s_per_audio_s"] for minute in minutes]
        first, last = sum(costs[:part]) / part, sum(costs[-part:]) / part
        memory = f"{minutes[0]['memory_mb']:.0f}, {minutes[-1]['memory_mb']:.0f}"
        rows.append(
            [
                session["session"],
                session["wer_percent"],
                _some(session["final_s"], "p50", "p95"),
                _rise(session["final_slope"]),
                f"{first:.3f}, {last:.3f}",
                _rise(session["cpu_slope"]),
                memory,
            ]
        )
    picture = f"![Cost, delay and memory by minute](results/{found['name']}.png)"
    return f"Pace {found['pace']:g}.\n\n{_table(columns, rows)}\n\n{picture}"


def _soak(found: Found) -> str:
    first, last = found["rests"][1]["services"], found["rests"][-1]["services"]
    columns = ["with no client there", "before all", "first rest", "last rest", "rise in an hour"]
    rows = [
        [
            f"{service}: {measure.removesuffix('_mb')}"
            + (", MB" if measure == "memory_mb" else ""),
            fresh[measure],
            first[service][measure],
            last[service][measure],
            _rise(rise),
        ]
        for service, fresh in found["rests"][0]["services"].items()
        for measure, rise in found["rises"][service].items()
    ]
    ends = [
        [name, sum(count.values()), ", ".join(f"{end} {number}" for end, number in count.items())]
        for name, count in found["ends"].items()
    ]
    counted = (
        f"{found['sessions']} sessions in {found['minutes']:g} minutes, {found['at_once']} clients"
        f" at once at pace {found['pace']:g}, faults: {len(found['faults'])}."
    )
    sessions = _table(["what the client did", "sessions", "how they ended"], ends)
    picture = f"![What each service holds over time](results/{found['name']}.png)"
    return f"{counted}\n\n{_table(columns, rows)}\n\n{sessions}\n\n{picture}"


def _deepgram(found: Found) -> str:
    columns = ["s", "p50", "p90", "p99", "measured"]
    rows = [
        [label, *(found[key][percent] for percent in ("p50", "p90", "p99")), found[number]]
        for label, key, number in _PROMPTNESS
    ]
    return f"{found['sessions']} sessions, {found['at_once']} at once.\n\n{_table(columns, rows)}"


_PROMPTNESS = (
    ("sent, and not spoken of in an interim result", "interim_behind_s", "interims"),
    ("age of the last word of an interim result", "last_word_old_s", "interims"),
    ("word first shown", "first_shown_s", "words_timed"),
    ("word final", "final_s", "words_timed"),
    ("`Finalize` to its answer", "finalize_s", "finalizes"),
    ("`CloseStream` to the end of the connection", "close_s", "closes"),
)


def _cost(found: Found) -> str:
    columns = [f"{found['loads'][0]['sessions']} sessions over", "cores", "cores per session"]
    columns += ["MB (USS)", "MB per session: USS", "PSS", "RSS", "answers after, p50 / p99 s"]
    rows = [
        [
            *(load["protocols"], load["cores"], f"{load['cores_per_session']:.4f}", load["uss_mb"]),
            *(load[f"{kind}_mb_per_session"] for kind in ("uss", "pss", "rss")),
            f"{load['answer_s']['p50']:.3f} / {load['answer_s']['p99']:.3f}",
        ]
        for load in found["loads"]
    ]
    parts = [[part["part"], part["cpu_ms_per_audio_s"], part["percent"]] for part in found["parts"]]
    divided = _table(["all of them, mixed", "ms of CPU for 1 s of audio", "%"], parts)
    message = f"{found['frame_ms']} ms of audio in a message."
    return f"{message}\n\n{_table(columns, rows)}\n\n{divided}"


def _translation(found: Found) -> str:
    columns = [
        "policy, languages",
        *("BLEU", "of whole sentences", "%", "chrF", "of whole sentences", "%"),
        *("erased per word", "committed after, p50 / p95 s", "LAAL, s", "CPU s per s"),
    ]
    rows = [
        (
            f"{row['policy']}, {row['pair']}",
            *(row["bleu"], row["whole_bleu"], round(100 * row["bleu"] / row["whole_bleu"], 1)),
            *(row["chrf"], row["whole_chrf"], round(100 * row["chrf"] / row["whole_chrf"], 1)),
            row["erased_per_word"],
            _some(row["committed_after_s"], "p50", "p95"),
            row["laal_s"],
            row["cpu_s_per_s"],
        )
        for row in found["rows"]
    ]
    crowds = [
        (
            f"{row['policy']}, {row['pair']}",
            *(row["at_once"], row["seconds"]),
            _some(row["committed_after_s"], "p50", "p95"),
            row["cores"],
        )
        for row in found["crowds"]
    ]
    crowded = ["policy, languages", "speakers at once", "seconds"]
    crowded += ["committed after, p50 / p95 s", "cores"]
    return f"{_table(columns, rows)}\n\n{_table(crowded, crowds)}"


def _interpret(found: Found) -> str:
    scores = ("bleu", "text_bleu", "chrf", "text_chrf", "chrf_of_true_text")
    columns = [
        "recordings, languages",
        *("seconds", "WER %", "BLEU", "of the true text", "chrF", "of the true text"),
        *("chrF against the true text's", "erased per word"),
        *("after the word, p50 / p95 s", "after its commit, p50 / p95 s", "LAAL, s"),
        "CPU s per s",
    ]
    rows = [
        (
            f"{row['manifest']}, {row['pair']}",
            *(row["audio_s"], row["wer"]),
            *(row.get(score) for score in scores),
            row["erased_per_word"],
            *(_some(row[lag], "p50", "p95") for lag in ("after_word_s", "after_commit_s")),
            *(row.get("laal_s"), row["cpu_s_per_s"]),
        )
        for row in found["rows"]
    ]
    return _table(columns, rows)


def _diarization(found: Found) -> str:
    columns = [
        "latency, and what is heard",
        "conversations",
        "DER %",
        "missed",
        "false",
        "confused",
    ]
    columns += ["DER %, collar 0.25 s", "JER %", "right number of speakers", "switches"]
    columns += ["turn known after, p50 / p95 s", "new speaker, p50 / p95 s", "CPU s per s"]
    rows = [
        [
            f"{group['latency_s']:g} s, {group['group']}",
            *(group[name] for name in ("conversations", "der_percent", "missed_percent")),
            *(group[name] for name in ("false_percent", "confused_percent")),
            *(group[name] for name in ("der_collar_percent", "jer_percent", "right_number")),
            group["switches"],
            _some(group["known_after_s"], "p50", "p95"),
            _some(group["new_known_after_s"], "p50", "p95"),
            f"{group['cpu_s_per_audio_s']:.3f}",
        ]
        for group in found["groups"]
    ]
    picture = f"![Who spoke when](results/{found['name']}.png)"
    return "\n\n".join([_table(columns, rows), *_diarized_offline(found), picture])


def _diarized_offline(found: Found) -> Iterable[str]:
    """Beside those who hear a conversation as a whole, and by words where they are known."""
    others = {(row["system"], row["group"]): row for row in found.get("offline", ())}
    systems = list(dict.fromkeys(system for system, _ in others))
    measures = {"DER %": "der_percent", "JER %": "jer_percent"}
    columns = ["latency, and what is heard"]
    for title in measures:
        columns += [f"{title}: voxmesh", *systems]
        columns += [f"less that of {system}, points" for system in systems[:1]]
    columns += ["right number of speakers: voxmesh", *systems[:1]]
    rows, worded = [], []
    for group in found["groups"]:
        label = f"{group['latency_s']:g} s, {group['group']}"
        theirs = [others[system, group["group"]] for system in systems]
        row: list[object] = [label]
        for name in measures.values():
            row += [group[name], *(other[name] for other in theirs)]
            row += [f"{group[name] - other[name]:+.1f}" for other in theirs[:1]]
        rows.append([*row, group["right_number"], *(one["right_number"] for one in theirs[:1])])
        if group.get("words"):
            errors = [[one["wder_percent"], one["cpwer_percent"]] for one in (group, *theirs[:1])]
            ours_and_theirs = (value for pair in zip(*errors, strict=True) for value in pair)
            worded.append([label, group["words"], *ours_and_theirs])
    if systems:
        yield _table(columns, rows)
    if worded:
        titles = [f"{title}: voxmesh" for title in ("WDER %", "cpWER %")]
        named = [column for title in titles for column in (title, *systems[:1])]
        yield _table(["latency, and what is heard", "words", *named], worded)
    if systems:
        versions = ", ".join(" ".join(pair) for pair in found["versions"].items())
        used = ", ".join(
            f"{others[systems[0], group]['cpu_s_per_audio_s']:.3f} ({group})"
            for group in dict.fromkeys(row["group"] for row in found["groups"])
        )
        yield f"CPU s per s of {systems[0]}: {used}. Its environment: {versions}."


def _longtalk(found: Found) -> str:
    columns = ["through minute", "s of audio sent", "CPU s per s of it", "MB (USS)"]
    columns += ["largest checkpoint, bytes", "speakers told apart so far", "wrong, %"]
    names = ("audio_s", "cpu_s_per_audio_s", "memory_mb", "checkpoint_bytes")
    rows: list[list[object]] = [
        [
            f"{part['through_min']:g}",
            part["audio_s"],
            f"{part['cpu_s_per_audio_s']:.4f}",
            *(part[name] for name in names[2:]),
            part["speakers_told"],
            part["wrong_percent"],
        ]
        for part in found["parts"]
    ]
    slopes = found["slopes"]
    rises = [_rise(slopes[name]) for name in names[1:]]
    rows.append(["rise in an hour", "", *rises, "", _rise(slopes["wrong_percent"])])
    words = found["words"]
    wder, cpwer = (100 * found[name] / words for name in ("words_wrong", "words_permuted_errors"))
    told = (
        f"{found['hours']:g} h of {found['speakers']} people at latency {found['latency_s']:g} s,"
        f" {found['heard_percent']:g} % of it sent; {found['memory_before_mb']:g} MB before."
        f" {words} words: WDER {wder:.2f} %, cpWER {cpwer:.2f} %."
    )
    return f"{told}\n\n{_table(columns, rows)}"


def _updates(found: Found) -> str:
    columns = ["a minute, first five and last five", "bytes", "messages", "gateway CPU, s"]
    costs = ("sent_bytes", "messages", "gateway_cpu_s")
    rows = [
        [
            f"`mode={session['mode']}`, {session['num_minutes']} min",
            *(_both_ends(session["minutes"], cost) for cost in costs),
        ]
        for session in found["sessions"]
    ]
    picture = f"![Bytes, messages and CPU time by minute](results/{found['name']}.png)"
    return f"{_table(columns, rows)}\n\n{picture}"


def _both_ends(minutes: Sequence[Mapping[str, float]], cost: str) -> str:
    return f"{_mean(minutes[:5], cost)} → {_mean(minutes[-5:], cost)}"


def _mean(minutes: Sequence[Mapping[str, float]], cost: str) -> str:
    mean = sum(minute[cost] for minute in minutes) / len(minutes)
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"


def _versus(found: Found) -> str:
    systems = found["systems"]
    names = found["recordings"]
    columns = ["system", "WER %", "sub", "del", "ins", "first shown, p50 / p95 s"]
    columns += ["final, p50 / p95 s", "CPU s per s", "MB"]
    rows = []
    by_recording: dict[str, list[list[object]]] = {"WER %": [], "end to last word final, s": []}
    for system in systems:
        label = f"{system['system']}, {system['decoding']}"
        row = [label, *(system[name] for name in ("wer_percent", "substitutions", "deletions"))]
        row += [system["insertions"], _some(system["first_shown_s"], "p50", "p95")]
        row += [_some(system["final_s"], "p50", "p95"), system["cpu_s_per_audio_s"]]
        rows.append([*row, system["memory_mb"]])
        for title, key in (
            ("WER %", "wer_percent_by_recording"),
            ("end to last word final, s", "end_to_last_word_s_by_recording"),
        ):
            by_recording[title].append([label, *(system[key][name] for name in names)])
    packages = ", ".join(" ".join(pair) for pair in found["versions"]["whisperlivekit"].items())
    parts = [_table(columns, rows)]
    parts += [_table([title, *names], rows) for title, rows in by_recording.items()]
    return "\n\n".join([*parts, f"Its environment: {packages}."])


def _rise(slope: Mapping[str, float]) -> str:
    return f"{slope['per_hour']:+.3f} ± {slope['error']:.3f}" if slope else ""


_TABLES = {
    "accuracy": _accuracy,
    "latency": _latency,
    "capacity": _capacity,
    "overload": _overload,
    "pauses": _pauses,
    "growth": _growth,
    "soak": _soak,
    "deepgram": _deepgram,
    "cost": _cost,
    "updates": _updates,
    "versus": _versus,
    "diarization": _diarization,
    "longtalk": _longtalk,
    "translation": _translation,
    "interpret": _interpret,
}


if __name__ == "__main__":
    update()
