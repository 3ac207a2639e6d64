"""Logging: to stderr, one line a record, secrets masked. Never to stdout, which may be a protocol."""

import logging
import re
import sys

_SECRETS = re.compile(
    r"(?i)((?:(?:api[-_]?key|token|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?)?(?:bearer|basic)\s+"
    r"|(?:api[-_]?key|token|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?)([^\s\"',;}]{6,})"
    r"|(?<=://)([^/@\s:]+:[^/@\s]+)(?=@)|\b(mg-[A-Za-z0-9_-]{8,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,})"
)


def mask(text: str) -> str:
    """The text with what looks like a secret replaced."""
    return _SECRETS.sub(lambda m: f"{m.group(1) or ''}********", text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def set_up(level: str) -> None:
    """Send mcpgate's own records of `level` and above to stderr; other libraries' from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mcpgate").setLevel(level.upper())
