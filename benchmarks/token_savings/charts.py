"""The two charts of a run as SVG, written without a library. Greys and colours that are readable on light and dark
alike; no background."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import log10

from benchmarks.token_savings.report import OURS, Header, Plays

_WIDTH, _HEIGHT = 820, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 215, 50, 50
_GREY = "#808890"
_COLOURS = ("#d1495b", "#e58a2d", "#1f9d55", "#7b6fd0", "#2f8fd0", "#b0883a")
_BAR, _GAP = 13, 34


def draw(header: Header, plays: Plays) -> dict[str, str]:
    """File name → SVG. Empty without plays."""
    if not plays.all:
        return {}
    return {"tokens_by_tools.svg": _tokens_by_tools(header, plays), "cost_by_task.svg": _cost_by_task(header, plays)}


def _colours(header: Header) -> Mapping[str, str]:
    return {rival: _COLOURS[at % len(_COLOURS)] for at, rival in enumerate(header.titles)}


# Tokens against number of tools


def _tokens_by_tools(header: Header, plays: Plays) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for rival in header.titles:
        for catalogue in header.catalogues:
            mean = plays.mean(rival, catalogue, lambda play: play.usage.input_tokens)
            if mean is not None:
                every = plays.of(next(iter(header.titles)), catalogue) or plays.of(rival, catalogue)
                tools = sum(play.tools for play in every) / len(every)
                lines.setdefault(rival, []).append((tools, mean))
    points = [point for line in lines.values() for point in line]
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (log10(x) - x_low) / (x_high - x_low)
        up = (log10(y) - y_low) / (y_high - y_low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_LEFT, 24, "Input tokens of a task, over all its model requests (mean)", size=15, weight="600")]
    for exponent in range(int(y_low), int(y_high) + 1):
        _, y = place(10**x_low, 10**exponent)
        parts.append(_line([(_LEFT, y), (_WIDTH - _RIGHT, y)], _GREY, 0.5, 0.4))
        parts.append(_text(_LEFT - 8, y + 4, _short(10**exponent), anchor="end"))
    for tools in _ticks(10**x_low, 10**x_high):
        x, y = place(tools, 10**y_low)
        parts.append(_line([(x, y), (x, y + 5)], _GREY, 1, 1))
        parts.append(_text(x, y + 20, _short(tools), anchor="middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, "tools in sight of the agent", anchor="middle"))
    ends = []
    for rival, line in lines.items():
        placed = [place(*point) for point in sorted(line)]
        colour = _colours(header)[rival]
        parts.append(_line(placed, colour, 3.5 if rival == OURS else 2, 1))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        ends.append((placed[-1], rival))
    parts += _labels(header, ends)
    return _svg(_WIDTH, _HEIGHT, parts)


def _labels(header: Header, ends: Sequence[tuple[tuple[float, float], str]]) -> Iterator[str]:
    """Names at the ends of lines, pushed down where they would overlap."""
    lowest = 0.0
    for (_, y), rival in sorted(ends, key=lambda end: end[0][1]):
        lowest = max(y + 4, lowest + 16)
        weight = "700" if rival == OURS else "400"
        yield _text(_WIDTH - _RIGHT + 10, lowest, header.titles[rival], _colours(header)[rival], weight=weight)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = log10(min(values)), log10(max(values))
    return float(int(low)), float(int(high) + 1)


def _ticks(low: float, high: float) -> Iterator[float]:
    value = low
    while value <= high:
        yield from (tick for tick in (value, 2 * value, 5 * value) if tick <= high)
        value *= 10


# Cost per task


def _cost_by_task(header: Header, plays: Plays) -> str:
    groups: list[tuple[str, list[tuple[str, float, float]]]] = []
    for catalogue, (tools, _) in header.catalogues.items():
        bars = []
        for rival in header.titles:
            plain = plays.mean(rival, catalogue, lambda play: float(header.price.cost_usd(play.usage, cached=False)))
            cached = plays.mean(rival, catalogue, lambda play: float(header.price.cost_usd(play.usage, cached=True)))
            if plain is not None and cached is not None:
                bars.append((rival, plain, cached))
        groups.append((f"+ {tools:,} tools" if tools else "own tools alone", bars))
    # Catalogs of thousands would make all others invisible.
    groups = [group for group in groups if group[1]][:4]
    most = max(cost for _, bars in groups for _, cost, _ in bars)
    scale = (_WIDTH - 345) / most
    parts = [
        _text(20, 24, f"Cost of a task at the prices of {header.price.model} (mean)", size=15, weight="600"),
        _text(20, 42, "pale: without prompt caching; full: with it", size=11),
    ]
    y = 62
    for name, bars in groups:
        parts.append(_text(20, y + 11, name, weight="600"))
        y += 20
        for rival, plain, cached in bars:
            colour = _colours(header)[rival]
            parts.append(_text(210, y + 10, header.titles[rival], anchor="end", size=11))
            parts.append(_rectangle(216, y, plain * scale, _BAR, colour, 0.4))
            parts.append(_rectangle(216, y, cached * scale, _BAR, colour, 1))
            parts.append(_text(222 + plain * scale, y + 10, f"${plain:.3f} / ${cached:.3f}", size=11))
            y += _BAR + 5
        y += _GAP - 20
    return _svg(_WIDTH, y + 6, parts)


# SVG


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(
    x: float, y: float, text: str, colour: str = _GREY, *, anchor: str = "start", size: int = 12, weight: str = "400"
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def _line(points: Sequence[tuple[float, float]], colour: str, width: float, opacity: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" opacity="{opacity}"/>'


def _rectangle(x: float, y: float, width: float, height: float, colour: str, opacity: float) -> str:
    size = f'width="{max(width, 1):.1f}" height="{height}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}" opacity="{opacity}"/>'


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
