"""What Code Mode saves, as an estimate that rather says too little.

Every call of a meta-tool is one request of a model. Classic MCP would have sent the definitions of all tools behind
the gateway with it; the gateway sent its own. An execution's tool answers would have gone through the model's context;
only what the code printed and returned did. Counted in characters, four to a token. Not counted, though classic MCP
would have paid for them: the further requests that calling those tools one by one would have taken, and that every
answer is read again with each later request of the conversation.
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
"""Different sets of grants whose definitions are measured."""


class Savings:
    """Measures what callers would have been sent, and were."""

    def __init__(self, views: Views, tool_list: Callable[[Caller], list[dict[str, Any]]]) -> None:
        """`tool_list`: what the gateway's own `tools/list` shows a caller."""
        self._views, self._tool_list = views, tool_list
        self._measured: dict[Grants, tuple[int, int]] = {}
        self.for_models = True
        """False where people ask: they save no tokens."""

    def of(self, caller: Caller, answer: str, outcome: Outcome | None) -> Saved:
        """What a call of a meta-tool has saved its caller; `outcome` if it ran code."""
        if not self.for_models:
            return Saved()
        chars = self._measured.get(caller.grants)
        if chars is None:
            if len(self._measured) > _MAX_REMEMBERED:
                self._measured.clear()
            theirs = sum(len(jsontext.dumps(tool.raw)) for tool in self._views.catalog_of(caller).tools)
            chars = self._measured[caller.grants] = (theirs, len(jsontext.dumps(self._tool_list(caller))))
        return saved(*chars, answer, outcome)

    def forget(self) -> None:
        """The tools have changed."""
        self._measured.clear()


def saved(theirs: int, ours: int, answer: str, outcome: Outcome | None) -> Saved:
    """What one call of a meta-tool saved. `theirs`, `ours`: characters of all upstream definitions that the caller
    may see, and of the gateway's own; `outcome` if the call ran code."""
    results = 0 if outcome is None else (outcome.answer_chars - len(answer)) // CHARS_PER_TOKEN
    return Saved((theirs - ours) // CHARS_PER_TOKEN, results)
