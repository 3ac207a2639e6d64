"""From the calls of a ground truth and their answers to what the oracle does: rounds, programs, answers. Pure.

Ground truths are ordered constants and do not state dependencies. Those are derived from the answers, conservatively:

- Two calls share a round only if no argument of the later one occurs in the earlier one's answer, and both only
  read, or both write: on different servers, or with one tool whose calls commute. A write never shares a round with a
  read: what was read may be the reason for the write.
- In a program, an argument that the assistant was not told (it is in no user's text and in nothing shown before) but
  that is in the answer of an earlier call of the turn is written as a reference into that answer, or as an f-string
  around it. A model would often write a condition where the oracle writes an index. What was computed from figures (a
  sum, a rounding) stays a constant.
- An argument with words or figures from an answer's prose can be written only after reading it: there the turn
  has `steps`, and the program before it shows what it read.
- A program shows what it read and did not merely pass on, the last call's answer, and what a later turn needs.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.token_savings.task import Call, Task, Turn

_LARGE_RESULT_CHARS = 8000
_ANSWER_CHARS = 240
_SHORTEST_QUOTE = 3
"""Fewest characters of a value that counts as quoted inside a longer text."""

_WORD = re.compile(r"\w[\w@.'-]{2,}\w")
_FIGURE = re.compile(r"\d+(?:\.\d+)?")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class TracedCall:
    server: str
    tool: str
    arguments: Mapping[str, Any]
    value: Any
    """Its answer, as code gets it."""
    writes: bool
    """Whether the tool changes the server's state."""
    commutes: bool
    """Whether consecutive calls of this tool have the same effect in any order."""


@dataclass(frozen=True, slots=True)
class TracedTurn:
    user: str
    calls: Sequence[TracedCall]
    answer: str
    """Empty: the answer is composed from what the program shows."""


@dataclass(frozen=True, slots=True)
class TracedTask:
    id: str
    difficulty: str
    """Empty: derived from the number of calls."""
    tags: Sequence[str]
    turns: Sequence[TracedTurn]


def parse_traces(tasks: Sequence[Mapping[str, Any]]) -> list[TracedTask]:
    return [
        TracedTask(
            task["id"],
            task["difficulty"],
            task["tags"],
            [
                TracedTurn(turn["user"], [TracedCall(**call) for call in turn["calls"]], turn["answer"])
                for turn in task["turns"]
            ],
        )
        for task in tasks
    ]


def to_task(suite: str, traced: TracedTask) -> Task:
    calls = [call for turn in traced.turns for call in turn.calls]
    told = ""
    turns = []
    for at, turn in enumerate(traced.turns):
        told += f"{turn.user}\n"
        later = [call for following in traced.turns[at + 1 :] for call in following.calls]
        program = _Program(turn.calls, told, later)
        shown = [_text(turn.calls[number].value) for number in program.shown]
        rounds = [[to_call(call) for call in calls] for calls in into_rounds(turn.calls)]
        steps, told = _into_steps(turn.calls, told, later)
        turns.append(Turn(turn.user, rounds, program.render(), turn.answer or _answer(shown), steps))
    servers = tuple(dict.fromkeys(call.server for call in calls))
    return Task(
        id=f"{suite}/{traced.id}",
        suite=suite,
        difficulty=traced.difficulty or by_calls(len(calls)),
        servers=servers,
        turns=turns,
        tags=frozenset(traced.tags) | _tags(calls, turns),
    )


def to_call(call: TracedCall) -> Call:
    return Call(call.server, call.tool, call.arguments)


def by_calls(number: int) -> str:
    if number <= 1:
        return "1 call"
    return "2-4 calls" if number < 5 else "5+ calls"


def _tags(calls: Sequence[TracedCall], turns: Sequence[Turn]) -> set[str]:
    found = {
        "single-call": all(sum(map(len, turn.rounds)) <= 1 for turn in turns),
        "parallel": any(len(calls) > 1 for turn in turns for calls in turn.rounds),
        "large-result": any(len(_text(call.value)) > _LARGE_RESULT_CHARS for call in calls),
        "multi-server": len({call.server for call in calls}) > 1,
        "multi-turn": len(turns) > 1,
        "reads-prose": any(turn.steps for turn in turns),
        "read-only": not any(call.writes for call in calls),
    }
    return {tag for tag, holds in found.items() if holds}


# Rounds


def into_rounds(calls: Sequence[TracedCall]) -> list[list[TracedCall]]:
    rounds: list[list[TracedCall]] = []
    for call in calls:
        if rounds and all(_are_independent(earlier, call) for earlier in rounds[-1]):
            rounds[-1].append(call)
        else:
            rounds.append([call])
    return rounds


def _are_independent(earlier: TracedCall, later: TracedCall) -> bool:
    if earlier.writes != later.writes:
        return False
    if earlier.writes and earlier.server == later.server and not (earlier.tool == later.tool and earlier.commutes):
        return False
    answered = _text(earlier.value)
    return not any(_text(leaf).strip('"') in answered for _, leaf in _leaves(later.arguments))


# Programs


def _into_steps(calls: Sequence[TracedCall], told: str, later: Sequence[TracedCall]) -> tuple[list[str], str]:
    """The programs of a turn, if it needs more than one, and everything the assistant has been told after it."""
    programs: list[str] = []
    start = 0
    while start < len(calls):
        end = start + 1
        while end < len(calls) and not _needs_reading(calls[end], calls[start:end], told):
            end += 1
        program = _Program(calls[start:end], told, [*calls[end:], *later])
        programs.append(program.render())
        shown = [calls[start + number].value for number in program.shown]
        told += "\n".join([*map(_text, shown), *(_text(call.arguments) for call in calls[start:end]), ""])
        start = end
    return (programs if len(programs) > 1 else []), told


def _needs_reading(call: TracedCall, before: Sequence[TracedCall], told: str) -> bool:
    for _, value in _leaves(call.arguments):
        if _is_told(value, told) or any(_refer("r", other.value, value, told) for other in before):
            continue
        if any(_is_out_of_prose(value, leaf, told) for other in before for _, leaf in _leaves(other.value)):
            return True
    return False


def _is_out_of_prose(value: Any, leaf: Any, told: str) -> bool:
    if not isinstance(leaf, str) or not re.search(r"\s", leaf):
        return False
    if isinstance(value, str):
        found = set(_WORD.findall(leaf.casefold()))
        return any(word in found and word not in told.casefold() for word in _WORD.findall(value.casefold()))
    return isinstance(value, (int, float)) and value in {float(text) for text in _FIGURE.findall(leaf)}


class _Program:
    """The calls of one turn as Python, with references between them."""

    def __init__(self, calls: Sequence[TracedCall], told: str, later: Sequence[TracedCall]) -> None:
        self._calls, self._told = calls, told
        self._referred: set[int] = set()
        """Numbers of the calls whose answers the program passes on."""
        self._lines = [self._render_call(number) for number in range(len(calls))]
        wanted = [leaf for call in later for _, leaf in _leaves(call.arguments) if not _is_told(leaf, self._told)]
        self.shown = [number for number in range(len(calls)) if self._is_shown(number, wanted)]

    def render(self) -> str:
        lines = []
        last = len(self._calls) - 1
        for number, line in enumerate(self._lines):
            named = number in self._referred or (number in self.shown and self.shown != [last])
            lines.append(f"r{number + 1} = {line}" if named else line)
        if self.shown != [last]:
            lines.append(", ".join(f"r{number + 1}" for number in self.shown))
        return "\n".join(lines)

    def _is_shown(self, number: int, wanted: Sequence[Any]) -> bool:
        call = self._calls[number]
        if number == len(self._calls) - 1 or not (call.writes or number in self._referred):
            return True
        return any(
            _is_same(leaf, want) or _is_out_of_prose(want, leaf, self._told)
            for _, leaf in _leaves(call.value)
            for want in wanted
        )

    def _render_call(self, number: int) -> str:
        call = self._calls[number]
        arguments = ", ".join(f"{name}={self._render(value, number)}" for name, value in call.arguments.items())
        return f"{call.server}.{call.tool}({arguments})"

    def _render(self, value: Any, number: int) -> str:
        if isinstance(value, list):
            return f"[{', '.join(self._render(item, number) for item in value)}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{key!r}: {self._render(item, number)}' for key, item in value.items())}}}"
        if not _is_told(value, self._told):
            for at in reversed(range(number)):
                if written := _refer(f"r{at + 1}", self._calls[at].value, value, self._told):
                    self._referred.add(at)
                    return written
        return repr(value)


def _is_told(value: Any, told: str) -> bool:
    return value is None or isinstance(value, bool) or str(value).casefold() in told.casefold()


def _refer(name: str, answer: Any, value: Any, told: str) -> str:
    """The expression that takes a value from an answer; empty if the value is not in it."""
    leaves = sorted(_leaves(answer), key=lambda found: len(found[0]))
    for path, leaf in leaves:
        if _is_same(leaf, value):
            return name + "".join(f"[{step!r}]" for step in path)
    if isinstance(value, str) and not set(value) & set("{}\\'\"\n"):
        for path, leaf in leaves:
            text = str(leaf)
            if _SHORTEST_QUOTE <= len(text) < len(value) and text in value and not _is_told(text, told):
                place = name + "".join(f"[{step!r}]" for step in path)
                return 'f"' + value.replace(text, f"{{{place}}}") + '"'
    return ""


def _is_same(leaf: Any, value: Any) -> bool:
    return type(leaf) is type(value) and not isinstance(value, bool) and leaf == value and leaf not in ("", None)


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _leaves(inner, (*path, at))
    else:
        yield path, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _answer(shown: Sequence[str]) -> str:
    """A short answer made of what was shown: benchmarks that judge only the state have none."""
    text = "; ".join(text for text in shown if text not in ("", "null", "{}"))
    return f"Done. {text[:_ANSWER_CHARS]}".strip()
