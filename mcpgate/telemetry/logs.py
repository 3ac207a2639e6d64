"""Logging: to stderr, one line a record, secrets masked. Never to stdout, which may be a protocol."""

import logging
import re
import sys
from typing import Any

from mcpgate.telemetry.text import visible

_SECRETS = re.compile(
    r"(?i)((?:(?:api[-_]?key|token|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?)?(?:bearer|basic)\s+"
    r"|(?:api[-_]?key|token|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?)([^\s\"',;}]{6,})"
    r"|(?<=://)([^/@\s:]+:[^/@\s]+)(?=@)|\b(mg-[A-Za-z0-9_-]{8,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,})"
)
_MAX_MESSAGE = 16_000
"""Characters of one message; what upstreams say can be megabytes."""


_SET = re.compile(r"[\"']?\s*[=:]")
_BLANK = re.compile(r"\s")
_HINTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("api", re.compile(r"[-_]?key[\"']?\s*[=:]")),
    *((name, _SET) for name in ("token", "secret", "password", "authorization")),
    *(("bearer", _BLANK), ("basic", _BLANK), ("://", re.compile(r"[^/@\s:]+:[^/@\s]+@"))),
    *((prefix, re.compile(r"[a-z0-9_-]{8}")) for prefix in ("mg-", "sk-")),
    ("gh", re.compile(r"[pousr]_[a-z0-9]{20}")),
)
"""What every secret that is recognized begins with, in small letters, and what follows it. Looked for first: few texts
have any, and the pattern itself takes a hundred times as long."""


def mask(text: str) -> str:
    """The text with what looks like a secret replaced."""
    if not _may_hold_secret(text.lower()):
        return text
    return _SECRETS.sub(lambda m: f"{m.group(1) or ''}********", text)


def _may_hold_secret(text: str) -> bool:
    for hint, rest in _HINTS:
        at = text.find(hint)
        while at >= 0:
            if rest.match(text, at + len(hint)):
                return True
            at = text.find(hint, at + 1)
    return False


class _Formatter(logging.Formatter):
    """A message is always one line and cannot move the cursor; only our own tracebacks have more lines, each
    indented so that none looks like a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message, limit=_MAX_MESSAGE)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(stack_info)

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler's formatter may have cached its own text
        return mask(super().format(record))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in visible(text, lines=True, limit=_MAX_MESSAGE).split("\n"))


def set_up(level: str) -> None:
    """Send mcpgate's own records of `level` and above to stderr, and other libraries' from warning up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mcpgate").setLevel(level.upper())
