"""Plays → Markdown and JSON. Plays nothing and counts nothing again."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from benchmarks.token_savings.prices import Price
from benchmarks.token_savings.stage import Play
from benchmarks.token_savings.transcript import Usage

ORACLE = "oracle"
BASE, OURS = "classic", "mcpgate"
PUBLISHED = {"96": -58.2, "251": -84.5, "508": -92.8}
"""Bifrost's published change of input tokens, percent."""
GOALS = {"96": -90.0, "251": -96.0, "508": -98.0}
_LISTED = 40
"""Most tasks that cost more to list."""


@dataclass(frozen=True)
class Header:
    agent: str
    """`oracle`, or the model's name."""
    machine: Mapping[str, Any]
    titles: Mapping[str, str]
    """Rival → its title, in the order of the columns."""
    catalogues: Mapping[str, tuple[int, int]]
    """Catalog → its tools and servers, in the order of the tables."""
    price: Price
    seconds: float
    complete: bool
    troubles: Sequence[str]


class Plays:
    """Plays, looked up by what they have in common."""

    def __init__(self, plays: Iterable[Play]) -> None:
        self.all = list(plays)
        self._by_key: dict[tuple[str, str, str], Play] = {(p.rival, p.catalogue, p.task): p for p in self.all}

    def of(self, rival: str, catalogue: str, where: Callable[[Play], bool] = lambda _: True) -> list[Play]:
        return [play for play in self.all if (play.rival, play.catalogue) == (rival, catalogue) and where(play)]

    def twin(self, play: Play, rival: str) -> Play | None:
        """The same task with the same catalog, played by another rival."""
        return self._by_key.get((rival, play.catalogue, play.task))

    def change(self, plays: Sequence[Play], rival: str = BASE) -> float | None:
        """Percent of input tokens that these plays need more than another rival's of the same tasks."""
        pairs = [(play, twin) for play in plays if (twin := self.twin(play, rival))]
        before = sum(twin.usage.input_tokens for _, twin in pairs)
        return (sum(play.usage.input_tokens for play, _ in pairs) / before - 1) * 100 if before else None

    def mean(self, rival: str, catalogue: str, measure: Callable[[Play], float]) -> float | None:
        """The mean of a measure over all tasks; None without plays. A rival that played only some of them is compared
        with the classic plays of the same tasks, and extrapolated to all."""
        found = self.of(rival, catalogue)
        base = self.of(BASE, catalogue)
        pairs = [(play, twin) for play in found if (twin := self.twin(play, BASE))]
        if not found:
            return None
        if len(found) >= len(base) or not pairs:
            return sum(map(measure, found)) / len(found)
        share = sum(measure(play) for play, _ in pairs) / sum(measure(twin) for _, twin in pairs)
        return share * sum(map(measure, base)) / len(base)


def total(plays: Iterable[Play]) -> Usage:
    return sum((play.usage for play in plays), Usage())


def markdown(header: Header, plays: Plays) -> str:
    parts = [_head(header), _against_the_goals(header, plays)]
    for catalogue in header.catalogues:
        parts.append(_catalogue(header, plays, catalogue))
    parts += [
        _by_suite(header, plays),
        _by_difficulty(header, plays),
        _more_requests(header, plays),
        _more_expensive(header, plays),
        _fixed_cost(header, plays),
        _failures(header, plays),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(header: Header, plays: Plays) -> dict[str, Any]:
    """The header, and every play."""
    about = asdict(header)
    about["price"] = {key: str(value) for key, value in about["price"].items()}
    return {"header": about, "plays": [asdict(play) for play in plays.all]}


def _head(header: Header) -> str:
    price = header.price
    lines = [
        f"# Token savings, {header.agent}",
        "",
        f"{header.machine['date']}; {header.machine['cpu']}, {header.machine['cores']} cores; Python "
        f"{header.machine['python']}; {header.seconds:.0f} s. Tokens: o200k_base (`bpe-openai`), over all model "
        f"requests of a task. Prices: {price.model}, ${price.input_usd} in and ${price.output_usd} out per million; "
        f"cached reads at {price.cached_share:.0%}.",
    ]
    if header.agent == ORACLE:
        lines += [
            "",
            "The oracle knows the ground truth and makes no mistakes: an upper bound for every rival alike, not an "
            "agent's result. Every program and call was actually executed, and the end state verified.",
        ]
    if not header.complete:
        lines += ["", "**Interrupted: only what was done by then.**"]
    lines += [f"\n**Did not run to its end:** {trouble}" for trouble in header.troubles]
    return "\n".join(lines)


def _against_the_goals(header: Header, plays: Plays) -> str:
    rows = []
    for catalogue in header.catalogues:
        ours = plays.of(OURS, catalogue)
        change = plays.change(ours)
        if change is None:
            continue
        twins = [twin for play in ours if (twin := plays.twin(play, BASE))]
        rows.append(
            [
                _name(header, catalogue),
                _span(play.tools for play in ours),
                _number(total(twins).input_tokens),
                _number(total(ours).input_tokens),
                f"**{_percent(change)}**",
                _percent(PUBLISHED.get(catalogue)),
                _percent(GOALS.get(catalogue)),
                f"{total(twins).requests} → {total(ours).requests}",
                _verified(ours),
            ]
        )
    titles = ("catalogue", "tools with the suite's own", "classic, input tokens", "mcpgate", "change")
    return _section(
        "Input tokens against classic MCP, one call a request",
        _table((*titles, "Bifrost's published", "goal", "requests", "verified"), rows),
    )


def _catalogue(header: Header, plays: Plays, catalogue: str) -> str:
    rows = []
    for rival, title in header.titles.items():
        of_rival = plays.of(rival, catalogue)
        if not of_rival:
            continue
        usage = total(of_rival)
        tasks = len({play.task for play in plays.all})
        rows.append(
            [
                title if len(of_rival) == tasks else f"{title}, {len(of_rival)} of {tasks} tasks",
                _number(usage.input_tokens),
                _percent(plays.change(of_rival)),
                _number(statistics.median(play.usage.input_tokens for play in of_rival)),
                _number(usage.output_tokens),
                _number(usage.requests),
                _number(sum(play.upstream_calls for play in of_rival)),
                _dollars(header.price.cost_usd(usage, cached=False)),
                _dollars(header.price.cost_usd(usage, cached=True)),
                f"{sum(play.seconds for play in of_rival):.1f}",
                _verified(of_rival),
            ]
        )
    titles = (
        "",
        "input",
        "vs classic",
        "median a task",
        "output",
        "requests",
        "upstream calls",
        "cost",
        "cost, cached",
    )
    return _section(f"In front of {_name(header, catalogue)}", _table((*titles, "s in tools", "verified"), rows))


def _by_suite(header: Header, plays: Plays) -> str:
    suites = list(dict.fromkeys(play.suite for play in plays.all))
    rows = []
    for suite in suites:
        for catalogue in header.catalogues:
            of_suite = {rival: plays.of(rival, catalogue, lambda p, s=suite: p.suite == s) for rival in header.titles}
            any_play = next((found for found in of_suite.values() if found), None)
            if any_play is None:
                continue
            cells = [_percent(plays.change(found)) if found else "–" for found in of_suite.values()]
            tools = _span(play.tools for play in any_play)
            rows.append([suite, _name(header, catalogue), tools, str(len(any_play)), *cells])
    titles = ("suite", "catalogue", "tools", "tasks", *header.titles.values())
    return _section("By suite: input tokens against classic", _table(titles, rows))


def _by_difficulty(header: Header, plays: Plays) -> str:
    rows = []
    for catalogue in header.catalogues:
        groups: dict[tuple[str, str], list[Play]] = defaultdict(list)
        for play in plays.of(OURS, catalogue):
            groups[play.suite, play.difficulty].append(play)
        for (suite, difficulty), ours in groups.items():
            twins = [twin for play in ours if (twin := plays.twin(play, BASE))]
            if not twins:
                continue
            rows.append(
                [
                    _name(header, catalogue),
                    suite,
                    difficulty,
                    str(len(ours)),
                    _number(statistics.median(play.usage.input_tokens for play in twins)),
                    _number(statistics.median(play.usage.input_tokens for play in ours)),
                    _percent(plays.change(ours)),
                    f"{total(twins).requests} → {total(ours).requests}",
                    f"{_dollars(header.price.cost_usd(total(twins), cached=True))} → "
                    f"{_dollars(header.price.cost_usd(total(ours), cached=True))}",
                ]
            )
    titles = ("catalogue", "suite", "difficulty", "tasks", "classic, median input", "mcpgate, median input", "change")
    return _section("By difficulty", _table((*titles, "requests", "cost, cached"), rows))


def _more_requests(header: Header, plays: Plays) -> str:
    """How often mcpgate needs more requests, and how many: the first look at tools costs one that classic MCP does not
    make."""
    rows = []
    for catalogue in header.catalogues:
        pairs = [(play, twin) for play in plays.of(OURS, catalogue) if (twin := plays.twin(play, BASE))]
        if not pairs:
            continue
        differences = [ours.usage.requests - theirs.usage.requests for ours, theirs in pairs]
        cells = [sum(low <= d <= high for d in differences) for low, high in ((-1000, -1), (0, 0), (1, 1), (2, 1000))]
        total_of = [str(sum(play.usage.requests for play in side)) for side in zip(*pairs, strict=True)]
        rows.append([_name(header, catalogue), *map(str, cells), f"{total_of[1]} → {total_of[0]}"])
    titles = ("catalogue", "fewer", "as many", "one more", "two or more", "all together")
    return _section("Requests: plays of mcpgate against classic MCP", _table(titles, rows))


def _more_expensive(header: Header, plays: Plays) -> str:
    """Every task where mcpgate costs more than classic MCP, with or without caching, and why."""
    rows = []
    for catalogue in header.catalogues:
        for ours in plays.of(OURS, catalogue):
            theirs = plays.twin(ours, BASE)
            if theirs is None:
                continue
            plain = [header.price.cost_usd(play.usage, cached=False) for play in (theirs, ours)]
            cached = [header.price.cost_usd(play.usage, cached=True) for play in (theirs, ours)]
            if plain[1] <= plain[0] and cached[1] <= cached[0]:
                continue
            rows.append([_name(header, catalogue), ours.task, _both(plain), _both(cached), _why(ours, theirs)])
    if not any(plays.of(OURS, catalogue) for catalogue in header.catalogues):
        return ""
    count = f"{len(rows)} of {sum(len(plays.of(OURS, catalogue)) for catalogue in header.catalogues)} plays."
    table = _table(("catalogue", "task", "cost: classic → mcpgate", "cached", "why"), rows[:_LISTED]) if rows else ""
    rest = f"\n\n… and {len(rows) - _LISTED} more, in the JSON." if len(rows) > _LISTED else ""
    return _section("Where Code Mode costs more than classic MCP", f"{count}\n\n{table}{rest}".strip())


def _why(ours: Play, theirs: Play) -> str:
    reasons = []
    if ours.usage.requests > theirs.usage.requests:
        reasons.append(f"{ours.usage.requests} requests instead of {theirs.usage.requests}")
    looked_up = sum(tokens for tool, (_, tokens) in ours.answers.items() if tool != "execute_code")
    if looked_up:
        reasons.append(f"{looked_up} tokens of looking up tools")
    if theirs.definitions < 4 * ours.definitions:
        reasons.append(f"few definitions to save ({theirs.definitions})")
    more_output = ours.usage.output_tokens - theirs.usage.output_tokens
    if more_output > 0:
        reasons.append(f"{more_output} tokens more written")
    return "; ".join(reasons)


def _fixed_cost(header: Header, plays: Plays) -> str:
    definitions = []
    for rival, title in header.titles.items():
        cells = [_span(play.definitions for play in plays.of(rival, catalogue)) for catalogue in header.catalogues]
        definitions.append([title, *cells])
    answers = []
    for rival, title in header.titles.items():
        if rival in (BASE, "parallel"):
            continue
        for catalogue in header.catalogues:
            found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
            for play in plays.of(rival, catalogue):
                for tool, (count, tokens) in play.answers.items():
                    found[tool][0] += count
                    found[tool][1] += tokens
            for tool, (count, tokens) in found.items():
                answers.append([title, _name(header, catalogue), tool, str(count), _number(tokens / count)])
    names = [_name(header, catalogue) for catalogue in header.catalogues]
    return _section(
        "Fixed cost",
        "Tokens of definitions in every request (the span over suites):\n\n"
        + _table(("", *names), definitions)
        + "\n\nAnswers of discovery and execution, mean tokens:\n\n"
        + _table(("", "catalogue", "tool", "answers", "tokens each"), answers),
    )


def _failures(header: Header, plays: Plays) -> str:
    rows = []
    for rival, title in header.titles.items():
        failed = {play.task: play.failure for play in plays.all if play.rival == rival and play.failure}
        rows += [[title, task, " ".join(reason.split())[:160].replace("|", "\\|")] for task, reason in failed.items()]
    return _section("Not verified", _table(("", "task", "why"), rows[:_LISTED])) if rows else ""


# Cells


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    numbers = [all(_is_number(row[at]) for row in rows) for at in range(len(titles))]
    rule = "|".join("--:" if number else "---" for number in numbers)
    return "\n".join([f"| {' | '.join(titles)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _is_number(cell: str) -> bool:
    return cell[:1] in "+-−–$*0123456789" if cell else True


def _name(header: Header, catalogue: str) -> str:
    tools, servers = header.catalogues[catalogue]
    return f"{tools:,} tools / {servers} servers" if tools else "the suite's own servers alone"


def _number(value: float) -> str:
    return f"{round(value):,}"


def _percent(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.1f} %" if value > -99.9 else f"{value:+.2f} %"  # -100.0 % would be free.


def _dollars(value: Decimal) -> str:
    return f"${value:.2f}" if value >= 1 else f"${value:.4f}"


def _both(costs: Sequence[Decimal]) -> str:
    return f"{_dollars(costs[0])} → {_dollars(costs[1])}"


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    if not found:
        return "–"
    return _number(found[0]) if len(found) == 1 else f"{found[0]:,}–{found[-1]:,}"


def _verified(plays: Sequence[Play]) -> str:
    passed = sum(not play.failure for play in plays)
    return f"{passed}/{len(plays)}"
