"""The errors that the model's code can catch.

Exception
 └── ToolError           a tool failed, or the gateway refused the call
      └── ArgumentError  the arguments do not fit the tool; the tool was never called
"""

from typing import Any

CLIENT = "(client)"
"""Takes the place of a server in what code says to its client."""


class ToolError(Exception):
    """A tool call failed. `.server` and `.tool` say which, `.message` why, `.data` is what the tool
    sent with its error (structured content or the protocol error's data), if anything."""

    def __init__(self, message: str, server: str = "", tool: str = "", data: Any = None) -> None:
        super().__init__(message)
        self.message, self.server, self.tool, self.data = message, server, tool, data

    def __str__(self) -> str:
        where = f"{self.server}.{self.tool}: " if self.server and self.tool else ""
        return where + self.message


class ArgumentError(ToolError, TypeError):
    """The arguments do not fit the tool's schema; nothing was sent."""


ToolError.__module__ = ArgumentError.__module__ = "builtins"


def error_from(fields: dict[str, Any]) -> ToolError:
    kind = ArgumentError if fields.get("kind") == "arguments" else ToolError
    server = str(fields.get("server", ""))
    return kind(
        str(fields.get("message", "")),
        "" if server == CLIENT else server,
        str(fields.get("tool", "")),
        fields.get("data"),
    )
