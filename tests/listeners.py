"""A client as upstreams see it: it notes what it hears, and answers what it is asked as it was told to."""

from collections.abc import Mapping
from typing import Any

from mcpgate.client import TaskState
from mcpgate.errors import NotSupported


class Listener:
    takes_questions = takes_tasks = False

    def __init__(
        self,
        answers: Mapping[str, dict[str, Any]] | None = None,
        capabilities: Mapping[str, Any] | None = None,
        is_live: bool = False,
        origin: object = "the test",
    ) -> None:
        """`answers`: method → what is answered to it."""
        self.answers, self.capabilities, self.is_live, self.origin = answers or {}, capabilities or {}, is_live, origin
        self.heard: list[Mapping[str, Any]] = []
        self.states: list[TaskState] = []
        self.logs: list[Mapping[str, Any]] = []
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def task(self, state: TaskState) -> None:
        self.states.append(state)

    def progress(self, params: Mapping[str, Any]) -> None:
        self.heard.append(params)

    def log(self, params: Mapping[str, Any]) -> None:
        self.logs.append(params)

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((method, params))
        if method not in self.answers:
            raise NotSupported(f"no answer to {method}")
        return self.answers[method]
