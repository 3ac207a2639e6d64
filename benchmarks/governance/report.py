"""Turns figures into the Markdown report and the JSON. Measures nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.governance.admission import Figures
from benchmarks.governance.keys import KeyFigures
from benchmarks.governance.ledger import LedgerFigures, seconds
from benchmarks.governance.peers import PeerFigures
from benchmarks.governance.simulation import ANSWERS, CALLERS, REQUESTS, WORKERS, Outcome


@dataclass
class Results:
    """All measurements; stores by their titles."""

    machine: dict[str, Any]
    absent: dict[str, str] = field(default_factory=dict)
    """Stores that do not answer, and why."""
    admissions: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    """Store → which rules."""
    rules: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    keys: dict[str, list[KeyFigures]] = field(default_factory=dict)
    ledger: LedgerFigures | None = None
    simulation: dict[str, list[Outcome]] = field(default_factory=dict)
    peers: list[PeerFigures] = field(default_factory=list)


def markdown(results: Results) -> str:
    machine = results.machine
    lines = [
        "# Governance",
        "",
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores; {machine['system']}; "
        f"Python {machine['python']}; load {machine['load_before']} before, {machine['load_after']} after; "
        f"a 4 KB write with fdatasync: p50 {machine['flush_us'][0]:,.0f} µs, p99 {machine['flush_us'][1]:,.0f} µs.",
    ]
    for name, reason in results.absent.items():
        lines += ["", f"LEFT OUT: {name}: {reason}"]
    if results.admissions:
        lines += ["", "## Admit + settle", *_admissions(results.admissions)]
    if results.rules:
        lines += ["", "## By rules", *_rules(results.rules)]
    if results.keys:
        lines += ["", "## By keys", *_keys(results.keys)]
    if results.ledger:
        lines += ["", "## Reports", *_ledger(results.ledger)]
    if results.simulation:
        lines += ["", "## Exactness", *_simulation(results.simulation)]
    if results.peers:
        lines += ["", "## Compared with peers", *_peers(results.peers)]
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    align = "|" + "---|" * left + "--:|" * (len(heads) - left)
    return ["", "| " + " | ".join(heads) + " |", align, *("| " + " | ".join(row) + " |" for row in rows)]


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _admissions(found: Mapping[str, Mapping[str, Sequence[Figures]]]) -> list[str]:
    columns = ("p50_us", "p99_us", "per_s", "cpu_us")
    rows = [
        [store, rules, str(f.callers), *(_us(f.of(name)) for name in columns)]
        for store, by_rules in found.items()
        for rules, figures in by_rules.items()
        for f in figures
    ]
    heads = ["store", "rules", "callers", "p50, µs", "p99, µs", "requests a second", "CPU, µs"]
    return _table(heads, rows, 2)


def _rules(found: Mapping[str, Mapping[str, Sequence[Figures]]]) -> list[str]:
    rows = []
    for store, by_rules in found.items():
        base = next(iter(by_rules.values()))
        for rules, figures in by_rules.items():
            row = [store, rules]
            for f, first in zip(figures, base, strict=True):
                p50, cpu = f.of("p50_us"), f.of("cpu_us")
                row += [_us(p50), f"×{p50 / first.of('p50_us'):.1f}", _us(cpu), _us(f.of("per_s"))]
            rows.append(row)
    callers = [f.callers for f in next(iter(next(iter(found.values())).values()))]
    heads = ["store", "rules"]
    for count in callers:
        who = "1 caller" if count == 1 else f"{count} callers"
        heads += [f"p50 at {who}, µs", "of one rule", "CPU, µs", "a second"]
    return _table(heads, rows, 2)


def _keys(found: Mapping[str, Sequence[KeyFigures]]) -> list[str]:
    rows = [
        [store, f"{f.keys:,}", *(_us(f.of(name, share)) for name in ("cold", "warm") for share in (0.5, 0.99))]
        for store, figures in found.items()
        for f in figures
    ]
    return _table(["store", "keys", "new key: p50, µs", "p99, µs", "known key: p50, µs", "p99, µs"], rows)


def _ledger(found: LedgerFigures) -> list[str]:
    rows = [
        [f"report by {by}, 30 days", f"{seconds(found.from_entries_s[by]):.2f} s", f"{seconds(spans):.2f} s"]
        for by, spans in found.from_sums_s.items()
    ]
    rows.append(["size of the file", f"{found.mib:,.0f} MiB", f"{found.rolled_mib:,.0f} MiB"])
    rows.append(["rows of entries, and of roll-ups", f"{found.entries:,}", f"{found.sums:,}"])
    lines = _table([f"SQLite, {found.entries:,} entries", "from entries only", "with roll-ups"], rows)
    rate = found.entries / found.rolled_s
    return [*lines, "", f"roll_up: {found.rolled_s:.1f} s, {rate:,.0f} entries a second."]


def _simulation(found: Mapping[str, Sequence[Outcome]]) -> list[str]:
    rows = []
    for title, outcomes in found.items():
        used = sorted(outcome.used for outcome in outcomes)
        over = max(0.0, used[-1] - 100)
        span = f"{used[0]:.0f} %" if used[0] == used[-1] else f"{used[0]:.0f}–{used[-1]:.0f} %"
        took = max(outcome.took_s for outcome in outcomes)
        rows.append([title, span, f"{over:.0f} %", f"{took:.1f}"])
    note = (
        f"Budget for {ANSWERS} answers, {REQUESTS:,} requests, {CALLERS} at once, 0.1 to 0.3 s each, estimated at "
        f"twice the cost. Processes: {WORKERS}, on one file."
    )
    return [*_table(["", "budget used", "overspent", "took, s"], rows), "", note]


def _peers(found: Sequence[PeerFigures]) -> list[str]:
    rows, lines = [], []
    for store in ("memory", "redis"):
        here = [figures for figures in found if figures.store == store]
        base = next((f for f in here if f.rounds and f.title.startswith("mcpgate")), None)
        for f in here:
            if f.failure is not None or not f.rounds:
                rows.append([store, f.title, f.does, "FAILED", "", "", ""])
                lines += ["", f"FAILED: {f.title}: {f.failure}"]
                continue
            ratio = f"×{f.of('p50_us') / base.of('p50_us'):.2f}" if base else ""
            rows.append([store, f.title, f.does, _us(f.of("p50_us")), ratio, _us(f.of("p99_us")), _us(f.of("cpu_us"))])
    heads = ["store", "", "does", "p50, µs", "of `reserve`", "p99, µs", "CPU, µs"]
    return [*_table(heads, rows, 3), *lines]


def as_json(results: Results) -> dict[str, Any]:
    """Every sample behind the tables, except for single requests."""
    found = asdict(results)
    for store, many in results.keys.items():
        for one, kept in zip(found["keys"][store], many, strict=True):
            for name in ("cold", "warm"):
                del one[f"{name}_us"]
                one[name] = {"p50_us": kept.of(name, 0.5), "p99_us": kept.of(name, 0.99)}
    return found
