"""What a request and its answer say, if that is kept: contract, and the values that go in. See activity/contents.py."""

from typing import AnyStr, NamedTuple, Protocol

from mcpgate.governance.callers import Caller
from mcpgate.governance.records import Entry, Request

_LONGEST_WORD = 1024


class Content(NamedTuple):
    """What was sent and answered: JSON or plain text."""

    most: int
    """Bytes, or characters of text, that are kept of each part."""
    sent: str | bytes = ""
    answered: str | bytes = ""
    is_stream: bool = False
    """Whether the answer is the server-sent events of a model's answer."""


class Contents(Protocol):
    def wants(self, caller: Caller, request: Request) -> int:
        """How many bytes of each part of a request are kept; 0 if nothing is. Asked while it runs, so it must be
        fast."""
        ...

    def keep(self, entry: Entry, content: Content) -> None:
        """Take the content of a request that has ended; it is written later."""
        ...


class NoContents:
    """Keeps nothing."""

    def wants(self, caller: Caller, request: Request) -> int:
        return 0

    def keep(self, entry: Entry, content: Content) -> None:
        pass


def cut(text: str | bytes, most: int) -> str | bytes:
    """A text without its middle, if it is too long."""
    if len(text) <= most:
        return text
    half = most // 2
    if isinstance(text, str):
        head, tail = _edges(text[:half], text[-half:], " ", '"', "\n")
        return f"{head}\n… {len(text) - len(head) - len(tail):,} characters left out …\n{tail}"
    begin, end = _edges(text[:half], text[-half:], b" ", b'"', b"\n")
    return begin + f"\n… {len(text) - len(begin) - len(end):,} bytes left out …\n".encode() + end


def _edges(head: AnyStr, tail: AnyStr, *between: AnyStr) -> tuple[AnyStr, AnyStr]:
    """Both without the word that was cut: half a secret would not be recognized as one."""
    end = max(head.rfind(one) for one in between)
    found = [at for one in between if (at := tail.find(one)) >= 0]
    begin = min(found, default=0)
    return head[: end if end > len(head) - _LONGEST_WORD else len(head)], tail[begin if begin < _LONGEST_WORD else 0 :]
