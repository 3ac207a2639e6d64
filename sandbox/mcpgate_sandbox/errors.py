"""What can go wrong with an execution, and whose fault it was.

    SandboxError
     ├── CodeFailed          theirs: the code raised, or did not compile
     ├── LimitReached        theirs: the code was ended because it used too much
     ├── Cancelled           nobody's: the caller went away
     ├── Crashed             ours: the interpreter itself died under the code
     └── SandboxUnavailable  ours: no engine, no component, or the engine itself broke
          └── SandboxBusy    ours, for now: too many executions wait, or this one waited too long

All but the last two are values of `Outcome.error`; those are raised, and then no code has run.
"""

from dataclasses import dataclass


class SandboxError(Exception):
    """Base of everything that this package reports."""


@dataclass
class CodeFailed(SandboxError):
    """The guest's code raised and did not catch, or did not compile."""

    type: str
    """Class name of the exception, as the guest tells it."""
    message: str
    traceback: str = ""
    """Lines of the model's own code, outermost first; empty when there are none."""
    line: int | None = None
    name: str | None = None
    """The name that was looked up in vain, for NameError and AttributeError."""
    server: str | None = None
    tool: str | None = None
    """The tool that failed, for an uncaught ToolError."""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass
class LimitReached(SandboxError):
    """The execution was ended by one of its limits."""

    limit: str
    """Name of the field of `Limits`: 'cpu_s', 'timeout_s', 'memory_mib', …"""
    message: str

    @classmethod
    def of_memory(cls, memory_mib: int) -> "LimitReached":
        """For an interpreter that did not survive what was most likely a lack of memory."""
        return cls(
            "memory_mib",
            f"the interpreter gave up, most likely out of memory (limit {memory_mib} MiB); what it held is lost",
        )

    def __str__(self) -> str:
        return self.message


class Cancelled(SandboxError):
    """The caller gave up on the execution."""

    def __str__(self) -> str:
        return "the execution was cancelled"


@dataclass
class Crashed(SandboxError):
    """The interpreter died: not at a limit, and not by an exception that the code raised."""

    how: str
    """What was seen of it, e.g. "signal 11"."""

    def __str__(self) -> str:
        return (
            f"the sandbox's interpreter died ({self.how}); that is the sandbox's failure and not an error of the code. "
            "Running it once more may work; if not, do the same in smaller steps"
        )


class SandboxUnavailable(SandboxError):
    """No code can run: what is missing, and how to get it."""


class SandboxBusy(SandboxUnavailable):
    """The execution did not begin, for too many others wait or run. It may be tried again later."""

    def __init__(self, message: str, *, of_account: bool) -> None:
        super().__init__(message)
        self.of_account = of_account
        """Whether it is the account's own executions that are too many; else those of all together."""


class ToolFailed(Exception):
    """Raised by the host's `call_tool` to give the guest a ToolError. `kind` is 'tool' (the tool ran and
    failed, or could not be reached) or 'arguments' (refused before it was called)."""

    def __init__(
        self, message: str, *, server: str = "", tool: str = "", kind: str = "tool", data: object = None
    ) -> None:
        super().__init__(message)
        self.message, self.server, self.tool, self.kind, self.data = message, server, tool, kind, data
