"""What Code Mode saves: a conservative estimate.

Every call of a meta-tool is one request of a model. With classic MCP, the request would carry the definitions of all
tools behind the gateway; here it carries only the gateway's own. An execution's tool results would all pass through the
model's context; here only what the code printed and returned does. Counted in characters, four per token. Two further
costs of classic MCP are not counted: the extra requests for calling those tools one by one, and reading every result
again with each later request of the conversation.
"""

from collections.abc import Callable
from typing import Any

from mcpgate import jsontext
from mcpgate.governance.callers import Caller, Grants
from mcpgate.governance.records import Saved
from mcpgate.proxy.views import Views
from mcpgate_sandbox.engine import Outcome

CHARS_PER_TOKEN = 4
_MAX_REMEMBERED = 1000
"""Distinct sets of grants whose definitions are measured."""


class Savings:
    """Compares what callers would have been sent with what they were sent."""

    def __init__(self, views: Views, tool_list: Callable[[Caller], list[dict[str, Any]]]) -> None:
        """`tool_list`: the gateway's own `tools/list` for a caller."""
        self._views, self._tool_list = views, tool_list
        self._measured: dict[tuple[str | None, Grants], tuple[int, int]] = {}
        self.for_models = True
        """False for people on the command line: they save no tokens."""

    def of(self, caller: Caller, answer: str, outcome: Outcome | None) -> Saved:
        """What a call of a meta-tool saved its caller; `outcome` if it ran code."""
        if not self.for_models:
            return Saved()
        place = (caller.bundle, caller.grants)
        chars = self._measured.get(place)
        if chars is None:
            if len(self._measured) > _MAX_REMEMBERED:
                self._measured.clear()
            theirs = sum(len(jsontext.dumps(tool.raw)) for tool in self._views.catalog_of(caller).tools)
            chars = self._measured[place] = (theirs, len(jsontext.dumps(self._tool_list(caller))))
        return saved(*chars, answer, outcome)

    def forget(self) -> None:
        """Measure again: the tools have changed."""
        self._measured.clear()


def saved(theirs: int, ours: int, answer: str, outcome: Outcome | None) -> Saved:
    """What one call of a meta-tool saved. `theirs`, `ours`: characters of all upstream definitions that the caller
    may see, and of the gateway's own; `outcome` if the call ran code."""
    results = 0 if outcome is None else (outcome.answer_chars - len(answer)) // CHARS_PER_TOKEN
    return Saved((theirs - ours) // CHARS_PER_TOKEN, results)
