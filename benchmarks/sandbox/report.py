"""Turns records into the Markdown table and the JSON. Measures nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.sandbox.contestants import Contestant
from benchmarks.sandbox.measure import HOGS, KILL_TIMEOUT_S, LIMIT_S, Record

_ABSENT = "–"


@dataclass(frozen=True)
class _Row:
    title: str
    part: str
    """The part whose failure fails the row."""
    value: Callable[[Record], float | None]
    digits: int = 2
    compared: bool = True


def _median(part: str, factor: float = 1000) -> Callable[[Record], float | None]:
    return lambda record: None if (value := record.time(part)) is None else value * factor


def _percentile(part: str, share: float) -> Callable[[Record], float | None]:
    return lambda record: None if (value := record.percentile(part, share)) is None else value * 1000


def _memory(key: str) -> Callable[[Record], float | None]:
    return lambda record: record.memory_mib.get(key)


def _ran(record: Record) -> float | None:
    return sum(not reason for reason in record.snippets.values()) if record.snippets else None


_ROWS = (
    _Row("fresh `print(1)`, p50, ms", "fresh", _percentile("fresh", 0.5)),
    _Row("… p99", "fresh", _percentile("fresh", 0.99)),
    _Row("back to back, p50, ms", "back to back", _percentile("back to back", 0.5)),
    _Row("… p99", "back to back", _percentile("back to back", 0.99)),
    _Row("pool empty, p50, ms", "cold", _percentile("cold", 0.5)),
    _Row("… p99", "cold", _percentile("cold", 0.99)),
    _Row("tool call, not awaited, µs", "call", _median("call", 1e6), 0),
    _Row("tool call, awaited, µs", "awaited call", _median("awaited call", 1e6), 0),
    _Row("tool call with an answer of 1 MB, ms", "big answer", _median("big answer"), 1),
    _Row("50 gathered calls of 20 ms, ms", "gather", _median("gather"), 1),
    _Row("executions a second, 4 at once", "rate", _median("rate", 1), 0),
    _Row("CPU of one of them, all processes, ms", "rate", _median("CPU")),
    _Row("CPU: fib(24), ms", "fib", _median("fib"), 1),
    _Row("CPU: loop of 300,000, ms", "loop", _median("loop"), 1),
    _Row("CPU: counting 100,000 in a dict, ms", "count", _median("count"), 1),
    _Row("memory a live guest, PSS, MiB", "memory", _memory("pss")),
    _Row("… USS", "memory", _memory("uss")),
    _Row("memory of the engine, PSS, MiB", "memory", _memory("engine"), 0),
    *(_Row(f"{hog}, ended after its limit by, ms", f"kill {hog}", _median(f"kill {hog}"), 0) for hog in HOGS),
    _Row("snippets that run, of 51", "snippets", _ran, 0, compared=False),
)

_NOTES = f"""\
In brackets: divided by `wasm`'s. Every figure is the median over rounds unless stated otherwise, measured in the \
contestant's own process, contestants taking turns. Executions are 30 ms apart, except for those back to back or \
several at once. p99 of fewer than 100 samples is the slowest. Limits of the hogs: {LIMIT_S} s of CPU \
time, or of wall time if a contestant has no other. For `python -I`, CPU is native speed. \
{_ABSENT}: the contestant has no such thing."""


def markdown(contestants: Sequence[Contestant], records: Mapping[str, Record], machine: Mapping[str, Any]) -> str:
    """The table, its notes, the snippets that did not run, and every failure."""
    shown = [contestant for contestant in contestants if not records[contestant.name].absent]
    base = records[contestants[0].name]
    lines = [
        "# Sandboxes",
        "",
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores; {machine['system']}; "
        f"load {machine['load_before']} before, {machine['load_after']} after. Python: "
        + ", ".join(f"{contestant.title} {records[contestant.name].python}" for contestant in shown)
        + ".",
        "",
        "| | " + " | ".join(contestant.title for contestant in shown) + " |",
        "|---|" + "--:|" * len(shown),
    ]
    for row in _ROWS:
        cells = [_cell(row, records[contestant.name], base) for contestant in shown]
        lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    lines += ["", _NOTES]
    for contestant in contestants:
        record = records[contestant.name]
        if record.absent:
            lines += ["", f"Left out: {contestant.title}: {record.absent}."]
        failed = {name: reason for name, reason in record.snippets.items() if reason}
        if failed:
            lines += ["", f"Snippets that do not run on {contestant.title}:", ""]
            lines += [f"- `{name}`: {' '.join(reason.split())}" for name, reason in failed.items()]
        for part, reason in record.failures.items():
            lines += ["", f"FAILED: {contestant.title}, {part}: {' '.join(reason.split())}"]
    return "\n".join(lines)


def _cell(row: _Row, record: Record, base: Record) -> str:
    if row.part in record.failures or "start" in record.failures:
        return "FAILED"
    if row.part.removeprefix("kill ") in record.never_ended:
        return f"not after {KILL_TIMEOUT_S:g} s"
    value = row.value(record)
    if value is None:
        return _ABSENT
    text = f"{value:.{row.digits}f}"
    other = None if {row.part, "start"} & base.failures.keys() else row.value(base)
    compared = row.compared and record is not base and other and float(text) > 0
    return f"{text} (×{_ratio(value / other)})" if compared and other else text.replace("-0.00", "0.00")


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}" if abs(ratio) >= 20 else f"{ratio:.1f}" if abs(ratio) >= 10 else f"{ratio:.2f}"


def as_json(
    contestants: Sequence[Contestant], records: Mapping[str, Record], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Every figure of the table, and every sample behind it, as JSON."""
    return {
        "machine": dict(machine),
        "contestants": {
            contestant.name: {
                "title": contestant.title,
                "packages": contestant.packages,
                "figures": {f"{row.part}: {row.title}": row.value(records[contestant.name]) for row in _ROWS},
                **asdict(records[contestant.name]),
            }
            for contestant in contestants
        },
    }
