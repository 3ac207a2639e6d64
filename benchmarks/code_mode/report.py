"""Turns records into the Markdown table and the JSON. Measures nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.code_mode.contestants import SEARCH, TASKS, Contestant
from benchmarks.code_mode.measure import Record, median, percentile

_ABSENT = "–"


@dataclass(frozen=True)
class _Row:
    title: str
    part: str
    """The part whose failure fails the row."""
    value: Callable[[Record], float | None]
    digits: int = 0


def _time(task: str, share: float) -> Callable[[Record], float | None]:
    return lambda record: percentile(record.runs_s[task], share) * 1000 if record.runs_s.get(task) else None


def _back_to_back(record: Record) -> float | None:
    return None if record.back_to_back_s is None else record.back_to_back_s * 1000


def _back_to_back_cpu(record: Record) -> float | None:
    return None if record.back_to_back_cpu_s is None else record.back_to_back_cpu_s * 1000


def _tokens(key: str) -> Callable[[Record], float | None]:
    return lambda record: record.tokens.get(key)


def _rss(at: int) -> Callable[[Record], float | None]:
    return lambda record: record.rss_mib[at] if record.rss_mib else None


_ROWS = (
    _Row("start → `tools/list`, s", "restart", lambda r: median(r.starts_s) if r.starts_s else None, 2),
    _Row(
        "start → first upstream result, s", "restart", lambda r: median(r.first_calls_s) if r.first_calls_s else None, 2
    ),
    *(
        _Row(f"{task.name}, {label}, ms", task.name, _time(task.name, share), 1)
        for task in TASKS
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ),
    _Row("0 calls, 100 back-to-back, ms each", TASKS[0].name, _back_to_back, 1),
    _Row("CPU of the gateway per execution without calls, ms", TASKS[0].name, Record.cpu_ms_per_execution, 1),
    _Row(
        "CPU an execution as a multiple of `python -I -c pass`",
        TASKS[0].name,
        lambda r: r.in_pythons(r.cpu_ms_per_execution()),
        2,
    ),
    _Row("… of 100 back-to-back", TASKS[0].name, lambda r: r.in_pythons(_back_to_back_cpu(r)), 2),
    _Row("CPU of the gateway per upstream call, ms", "50 in turn", Record.cpu_ms_per_call, 2),
    _Row("peak RSS of the gateway, MiB", "start", _rss(0)),
    _Row("… with its children, MiB", "start", _rss(1)),
    _Row("PSS of both at the end, MiB", "start", lambda r: r.pss_mib),
    _Row("tools shown", "start", lambda r: r.tools or None),
    _Row("tokens: tool definitions", "start", _tokens("definitions")),
    _Row("tokens: server instructions", "start", _tokens("instructions")),
    _Row(f"tokens: search “{SEARCH}”", "search", _tokens("search")),
    _Row("tokens: describe one tool", "describe", _tokens("describe")),
    _Row("tokens: answer of 50 calls", "50 in turn", _tokens("answer")),
)


def markdown(contestants: Sequence[Contestant], records: Mapping[str, Record], machine: Mapping[str, Any]) -> str:
    """The table, its notes and every failure. In brackets: the value divided by mcpgate's."""
    ours = records[contestants[0].name]
    lines = [
        "# Code mode",
        "",
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores; {machine['system']}; "
        f"Python {machine['python']}, Node.js {machine['node']}; "
        f"load {machine['load_before']} before, {machine['load_after']} after.",
        "",
        "| | " + " | ".join(contestant.title for contestant in contestants) + " |",
        "|---|" + "--:|" * len(contestants),
    ]
    for row in _ROWS:
        cells = [_cell(row, records[contestant.name], ours) for contestant in contestants]
        lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append(
        "In brackets: divided by mcpgate's. Times are of one `execute_code` or its equivalent, by the same client, "
        "30 ms apart; p99 of fewer than 100 runs is the slowest. CPU and memory are without the upstreams. Runs: "
        + "; ".join(f"{contestant.title} {_runs(records[contestant.name])}" for contestant in contestants)
        + "."
    )
    for contestant in contestants:
        parts: dict[str, list[str]] = {}
        for part, reason in records[contestant.name].failures.items():
            parts.setdefault(" ".join(reason.split()), []).append(part)
        for reason, failed in parts.items():
            lines += ["", f"FAILED: {contestant.title}, {', '.join(failed)}: {reason}"]
    return "\n".join(lines)


def _cell(row: _Row, record: Record, ours: Record) -> str:
    if row.part in record.failures or "start" in record.failures:
        return "FAILED"
    value = row.value(record)
    if value is None:
        return _ABSENT
    text = f"{value:.{row.digits}f}"
    base = row.value(ours)
    comparable = record is not ours and base and row.part not in ours.failures and "start" not in ours.failures
    return f"{text} (×{value / base:.2f})" if comparable and base else text


def _runs(record: Record) -> str:
    counts = [f"{len(record.starts_s)} starts"] if record.starts_s else []
    counts += [f"{len(record.runs_s[task.name])} × {task.name}" for task in TASKS if task.name in record.runs_s]
    return ", ".join(counts) or "none"


def as_json(
    contestants: Sequence[Contestant], records: Mapping[str, Record], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Every figure of the table, and every sample behind it, as JSON."""
    return {
        "machine": dict(machine),
        "contestants": {
            contestant.name: {
                "title": contestant.title,
                "figures": {row.title: row.value(records[contestant.name]) for row in _ROWS},
                **asdict(records[contestant.name]),
            }
            for contestant in contestants
        },
    }
