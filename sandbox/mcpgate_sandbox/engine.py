"""The contract between whoever wants code run and whatever runs it. Values and protocols only."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mcpgate_sandbox.errors import Cancelled, CodeFailed, Crashed, LimitReached


@dataclass(frozen=True, slots=True)
class Limits:
    """What one execution may use. Enforced by the host, whatever the guest does."""

    timeout_s: float = 60.0
    """Wall seconds of the code itself, its sleeping included; waiting for tools is counted apart."""
    tool_wait_s: float = 300.0
    """Seconds that the code spends waiting for tools, all waits together."""
    cpu_s: float = 10.0
    """CPU seconds of what runs the guest; waiting costs none."""
    memory_mib: int = 256
    """All the memory of the guest, of which the bare interpreter takes about 45."""
    max_tool_calls: int = 500
    max_parallel_calls: int = 32
    """Calls in flight at once; further ones wait for their turn."""
    max_output_chars: int = 200_000
    """stdout and stderr together."""
    max_result_chars: int = 16_000_000
    """JSON of the result, before it is shaped for the model."""
    max_source_chars: int = 1_000_000
    max_argument_chars: int = 16_000_000
    """JSON of one call's arguments."""
    max_reply_chars: int = 32_000_000
    """JSON of one call's answer, as the guest gets it."""
    max_depth: int = 200
    """How deeply lists and objects may nest in arguments, answers and results."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Something that stays on the host while the guest holds its name."""

    id: str
    kind: str = ""
    """'image', 'audio', 'blob' or 'value'. Of one that comes from the guest only the id is known."""
    mime_type: str = ""
    size: int = 0
    """Bytes."""
    uri: str | None = None


CallTool = Callable[[str, str, list[Any], dict[str, Any]], Awaitable[Any]]
"""`await call_tool(server, tool, positional, named)` gives a JSON-like value that may hold Handles, or
raises ToolFailed. Runs on the caller's event loop; cancelled when the execution ends first."""

HostCall = Callable[[str, list[Any]], Any]
"""`host_call("@load", ["r7"])`: what the guest's own helpers ask for: `@tools` (a server's tools: accepted name
→ identifier), `@help` (text about a tool or a server), `@load`, `@bytes`. Called in the guest's thread; may raise
ToolFailed."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One piece of code to run."""

    code: str
    servers: Sequence[str]
    """Identifiers of the servers that the code finds as globals."""
    call_tool: CallTool
    host_call: HostCall
    limits: Limits = field(default_factory=Limits)
    session: str | None = None
    """Executions of one owner with the same session share variables; None starts from nothing."""
    owner: str = ""
    """Whose sessions these are: nobody else's executions reach them."""
    account: str = ""
    """Whom shares of slots, places in the queue and numbers of sessions are counted for. It must not be a name that
    callers choose; empty means `owner`."""
    on_started: Callable[[], None] | None = None
    """Called once the code begins to run, after all waiting for a slot or a session's turn. It is called in the guest's
    thread and must return at once. An execution that never began calls it never."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an execution."""

    result: Any = None
    """JSON-like, with Handles in it. None also where there was none."""
    stdout: str = ""
    stderr: str = ""
    error: CodeFailed | LimitReached | Cancelled | Crashed | None = None
    tool_calls: int = 0
    answer_chars: int = 0
    """Characters of all that the tools answered."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    """From start to end, `tool_wait_s` included."""
    tool_wait_s: float = 0.0
    """Seconds spent waiting for tools."""
    notes: Sequence[str] = ()
    """Things the model should know, e.g. that its session was lost."""


class Engine(Protocol):
    """Runs code. Implementations: wasm.py, isolated.py, restricted.py."""

    name: str
    """`wasm` or `restricted`: what the code finds itself in."""

    def start(self, progress: Callable[[str], None] | None = None) -> None:
        """Begin to get ready in the background; returns at once. `progress` hears of long work."""
        ...

    async def ready(self) -> None:
        """Wait until code can run. Raises SandboxUnavailable."""
        ...

    async def run(self, execution: Execution) -> Outcome:
        """Run one piece of code. Raises SandboxUnavailable, SandboxBusy among it, and CancelledError after ending the
        guest."""
        ...

    async def modules(self) -> tuple[list[str], list[str]]:
        """Standard modules the guest has, and those it lacks."""
        ...

    async def locks(self) -> list[str]:
        """What stands between the guest and this machine, in words, as it was really put in place."""
        ...

    async def aclose(self) -> None: ...
