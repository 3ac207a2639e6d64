"""What tools log while code calls them: passed on to the client, and kept for the answer if the code fails."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.client import Client, TaskState
from mcpgate.telemetry.text import one_line

_KEPT, _LONGEST = 10, 300
"""Messages, the latest ones, and characters of each."""


class ToolLogs:
    """The client of one execution."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.lines: deque[str] = deque(maxlen=_KEPT)

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._client.capabilities

    @property
    def origin(self) -> object:
        return self._client.origin

    @property
    def is_live(self) -> bool:
        return self._client.is_live

    @property
    def takes_questions(self) -> bool:
        return self._client.takes_questions

    @property
    def takes_tasks(self) -> bool:
        return self._client.takes_tasks

    def task(self, state: TaskState) -> None:
        self._client.task(state)

    def progress(self, params: Mapping[str, Any]) -> None:
        self._client.progress(params)

    def log(self, params: Mapping[str, Any]) -> None:
        data = params.get("data")
        text = data if isinstance(data, str) else jsontext.dumps(data).decode("utf-8", "replace")
        logger, level = params.get("logger"), params.get("level")
        where = f"{logger}: " if isinstance(logger, str) and logger else ""
        self.lines.append(one_line(f"{level if isinstance(level, str) else 'info'}: {where}{text}", _LONGEST))
        self._client.log(params)

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return await self._client.ask(method, params)

    def text(self) -> str:
        """For the model; empty if nothing was logged."""
        return "\n".join(("Tools logged meanwhile:", *self.lines)) if self.lines else ""
