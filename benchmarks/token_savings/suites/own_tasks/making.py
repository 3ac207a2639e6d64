"""The parts of an own task: what the user asks, what the oracle does, and how the end state is judged.

Rounds are what a careful agent without Code Mode would make: one call if a tool accepts many items at once, and
parallel calls wherever possible.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.token_savings.suites.own_desk import Desk
from benchmarks.token_savings.task import Call, Turn

HOME = "/srv/ada"
"""The servers' name for their working folder."""

Judge = Callable[[Desk, str], str]
"""(desk, last answer) → an empty text if all is well, else what is wrong."""


@dataclass(frozen=True, slots=True)
class OwnTask:
    name: str
    turn: Turn
    done: Judge
    tags: frozenset[str]

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(call.server for calls in self.turn.rounds for call in calls))


def task(
    name: str, tags: str, user: str, rounds: Sequence[Sequence[Call]], code: str, answer: str, done: Judge
) -> OwnTask:
    return OwnTask(name, Turn(user, rounds, code.strip("\n"), answer), done, frozenset(tags.split()))


def single(name: str, user: str, only: Call, answer: str, done: Judge) -> OwnTask:
    """A task of one call, whose program is that call."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in only.arguments.items())
    return task(name, "", user, [[only]], f"{only.server}.{only.tool}({arguments})", answer, done)


def call(server: str, tool: str, /, **arguments: Any) -> Call:
    return Call(server, tool, arguments)


def read(name: str) -> Call:
    return call("filesystem", "read_text_file", path=f"{HOME}/{name}")


def read_all(names: Iterable[str]) -> Call:
    return call("filesystem", "read_multiple_files", paths=[f"{HOME}/{name}" for name in names])


def write(name: str, content: str) -> Call:
    return call("filesystem", "write_file", path=f"{HOME}/{name}", content=content)


def listing(name: str) -> Call:
    return call("filesystem", "list_directory", path=f"{HOME}/{name}")


def query(query: str) -> Call:
    return call("sqlite", "read_query", query=query)


def change(query: str) -> Call:
    return call("sqlite", "write_query", query=query)


# Judging


def holds(look: Callable[[Desk], Any], wanted: Any) -> Judge:
    def judge(desk: Desk, answer: str) -> str:
        found = look(desk)
        return "" if found == wanted else f"found {str(found)[:300]!r}, wanted {str(wanted)[:300]!r}"

    return judge


def says(*wanted: object) -> Judge:
    """The answer contains each of these as a separate word or number."""

    def judge(desk: Desk, answer: str) -> str:
        said = re.sub(r"(?<=\d),(?=\d{3})", "", answer)
        missing = [word for word in wanted if not re.search(rf"(?<![\w.]){re.escape(str(word))}(?![\w])", said)]
        return f"the answer lacks {missing}" if missing else ""

    return judge


def all_of(*judges: Judge) -> Judge:
    return lambda desk, answer: next(filter(None, (judge(desk, answer) for judge in judges)), "")


def as_json(name: str) -> Callable[[Desk], Any]:
    def look(desk: Desk) -> Any:
        try:
            return json.loads(desk.read(name))
        except ValueError:
            return desk.read(name)

    return look


def as_lines(name: str) -> Callable[[Desk], list[str]]:
    return lambda desk: [line.strip() for line in desk.read(name).splitlines() if line.strip()]
