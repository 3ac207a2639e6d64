"""What Code Mode has saved so far, as an estimate that rather says too little.

Every call of a meta-tool is one request of a model. Classic MCP would have sent the definitions of all tools behind
the gateway with it; the gateway sent its own. An execution's tool answers would have gone through the model's context;
only what the code printed and returned did. Counted in characters, four to a token. Not counted, though classic MCP
would have paid for them: the further requests that calling those tools one by one would have taken, and that every
answer is read again with each later request of the conversation.
"""

import datetime
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from mcpgate.telemetry.metrics import Metrics
from mcpgate_sandbox.engine import Outcome

CHARS_PER_TOKEN = 4

COUNTED = (
    "requests",
    "executions",
    "failed_executions",
    "tool_calls",
    "definition_tokens_saved",
    "result_tokens_saved",
)


class Tallies(Protocol):
    """Sums by day and name that outlive the process. Implementations: stores/sqlite.py."""

    def add(self, day: str, amounts: Iterable[tuple[str, int]]) -> None: ...


class Savings:
    """Counts what each call of a meta-tool saved."""

    def __init__(self, tallies: Tallies, metrics: Metrics, definition_chars: Callable[[], tuple[int, int]]) -> None:
        """`definition_chars`: characters of all upstream definitions, and of the gateway's own, right now."""
        self._tallies, self._metrics, self._definition_chars = tallies, metrics, definition_chars
        self._new: Counter[str] = Counter()

    def request(self, answer: str, outcome: Outcome | None = None) -> None:
        """A model called a meta-tool and reads `answer`; `outcome` if that ran code."""
        theirs, ours = self._definition_chars()
        amounts = Counter({"requests": 1, "definition_tokens_saved": (theirs - ours) // CHARS_PER_TOKEN})
        if outcome is not None:
            amounts["executions"] = 1
            amounts["failed_executions"] = int(outcome.error is not None)
            amounts["tool_calls"] = outcome.tool_calls
            amounts["result_tokens_saved"] = (outcome.answer_chars - len(answer)) // CHARS_PER_TOKEN
        self._new.update(amounts)
        self._metrics.count(amounts)

    def flush(self) -> None:
        """Write what is new."""
        new, self._new = self._new, Counter()
        if new:
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            self._tallies.add(today, list(new.items()))
