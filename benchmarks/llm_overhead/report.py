"""Turns records into the Markdown tables and the JSON. Measures nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.llm_overhead.contestants import FACES, Contestant, Face
from benchmarks.llm_overhead.measure import FEW, MANY, PACED_STREAMS, STREAMS, Record

_ABSENT = "–"
_Value = Callable[[Record, Face], float | None]


@dataclass(frozen=True)
class _Row:
    title: str
    part: str
    """The part whose failure fails the row."""
    value: _Value
    digits: int = 0


def _median(figure: str) -> _Value:
    return lambda record, face: record.median(face, figure)


_PACED = f"{PACED_STREAMS} paced streams"
_ROWS = (
    _Row("CPU a request, µs", "requests", _median("cpu_us")),
    _Row("added p50, µs", "requests", _median("added_p50_us")),
    _Row("added p99, µs", "requests", _median("added_p99_us")),
    _Row(f"requests a second, {FEW} connection", "requests", _median("rate_few")),
    _Row(f"requests a second, {MANY} connections", "requests", _median("rate_many")),
    _Row("an answer from the cache: CPU, µs", "hits", _median("hit_cpu_us")),
    _Row("an answer from the cache: p50, µs", "hits", _median("hit_p50_us")),
    _Row(f"answers from the cache a second, {FEW} connection", "hits", _median("hit_rate_few")),
    _Row(f"answers from the cache a second, {MANY} connections", "hits", _median("hit_rate_many")),
    _Row(f"streams of 50 events a second, {STREAMS} connections", "streams", _median("streams")),
    _Row("CPU a stream, µs", "streams", _median("stream_cpu_us")),
    _Row(f"{_PACED}: first event, p50, ms", "paced streams", _median("first_p50_ms"), 1),
    _Row(f"{_PACED}: first event, p99, ms", "paced streams", _median("first_p99_ms"), 1),
    _Row(f"{_PACED}: last event late, p50, ms", "paced streams", _median("last_p50_ms"), 1),
    _Row(f"{_PACED}: last event late, p99, ms", "paced streams", _median("last_p99_ms"), 1),
    _Row(f"{_PACED}: CPU an event, µs", "paced streams", _median("event_cpu_us")),
    _Row("RSS afterwards, MiB", "start", lambda record, _: record.rss_mib),
    _Row("PSS afterwards, MiB", "start", lambda record, _: record.pss_mib),
)


def markdown(contestants: Sequence[Contestant], records: Mapping[str, Record], machine: Mapping[str, Any]) -> str:
    """A table for each face, and every failure. In brackets: the value divided by that of the first contestant."""
    lines = [
        "# What a gateway adds to a request to a model",
        "",
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores; {machine['system']}; "
        f"Python {machine['python']}, Node.js {machine['node']}; {machine['commit']}; "
        f"load {machine['load_before']} before, {machine['load_after']} after.",
    ]
    for face, name in FACES.items():
        columns = [contestant for contestant in contestants if face in contestant.faces]
        lines += ["", f"| {name} | " + " | ".join(one.title for one in columns) + " |", "|---|" + "--:|" * len(columns)]
        for row in _ROWS:
            cells = [_cell(row, face, records[one.name], records[contestants[0].name]) for one in columns]
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    rounds = {one.title: _rounds(records[one.name]) for one in contestants}
    lines += [
        "",
        f"In brackets: divided by that of {contestants[0].title}. Medians of the rounds: "
        + "; ".join(f"{title} {number}" for title, number in rounds.items())
        + ".",
    ]
    for contestant in contestants:
        parts: dict[str, list[str]] = {}
        for part, reason in records[contestant.name].failures.items():
            parts.setdefault(" ".join(reason.split()), []).append(part)
        for reason, failed in parts.items():
            lines += ["", f"FAILED: {contestant.title}, {', '.join(failed)}: {reason}"]
    return "\n".join(lines)


def _cell(row: _Row, face: Face, record: Record, ours: Record) -> str:
    if not {"start", f"{face} {row.part}"}.isdisjoint(record.failures):
        return "FAILED"
    value = row.value(record, face)
    if value is None:
        return _ABSENT
    text = f"{value:,.{row.digits}f}"
    base = row.value(ours, face)
    return text if record is ours or not base or base < 0 else f"{text} (×{value / base:.2f})"


def _rounds(record: Record) -> int:
    return max((len(samples) for kept in record.figures.values() for samples in kept.values()), default=0)


def as_json(
    contestants: Sequence[Contestant], records: Mapping[str, Record], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Every figure of the tables, and those of every round behind them."""
    return {
        "machine": dict(machine),
        "contestants": {
            contestant.name: {
                "title": contestant.title,
                "medians": {
                    face: {row.title: row.value(records[contestant.name], face) for row in _ROWS}
                    for face in contestant.faces
                },
                **asdict(records[contestant.name]),
            }
            for contestant in contestants
        },
    }
