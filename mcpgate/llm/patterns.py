"""A guardrail that finds secrets and personal data by their form: `mcpgate.llm.patterns:Patterns`."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mcpgate.llm.guardrails import About, Blocked, Filter

PATTERNS: Mapping[str, str] = {
    "secrets": r"\b(?:sk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,200}|gh[pousr]_[A-Za-z0-9]{36,255}|AKIA[0-9A-Z]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,200}|AIza[0-9A-Za-z_-]{35}|mg-[A-Za-z0-9_-]{20,200})\b"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----",
    "emails": r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}\b",
    "cards": r"\b(?:\d[ -]?){12,18}\d\b",
    "ibans": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b",
    "phones": r"(?<![\w+])\+\d{1,3}[ -]?(?:\(?\d{1,4}\)?[ -]?){2,5}\d{2,4}\b",
}
_LONGEST = 512
"""Characters that anything found may have; so many are kept back of a text that goes on."""


class Patterns:
    """Each kind of PATTERNS, and each of `more` (name → regular expression), is masked, blocked or let through:

    settings: {secrets: block, emails: mask, more: {tickets: "TICKET-[0-9]+"}, tickets: mask, answers: true}
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        more = settings.get("more", {})
        if not isinstance(more, Mapping):
            raise ValueError("more must map names to regular expressions")
        known = {**PATTERNS, **more}
        actions = {name: action for name, action in settings.items() if name not in ("more", "answers")}
        for name, action in actions.items():
            if name not in known:
                raise ValueError(f"there is no pattern {name!r}; there are: {', '.join(known)}")
            if action not in ("mask", "block", "allow"):
                raise ValueError(f"{name} must be mask, block or allow, not {action!r}")
        try:
            self._rules = [(name, re.compile(known[name]), action) for name, action in actions.items()]
        except re.error as error:
            raise ValueError(f"more: {error}") from error
        self._answers = bool(settings.get("answers", True))

    async def before(self, texts: Sequence[str], about: About) -> Sequence[str]:
        return [self.checked(text, "the request") for text in texts]

    def during(self, about: About) -> Filter | None:
        return _Kept(self) if self._answers else None

    async def after(self, text: str, about: About) -> None:
        pass

    def checked(self, text: str, where: str) -> str:
        """A text with what is to be masked masked. Raises Blocked."""
        for name, pattern, action in self._rules:
            if action == "mask":
                text = pattern.sub(functools.partial(_masked, name), text)
            elif action == "block" and any(_is_real(found, name) for found in pattern.finditer(text)):
                raise Blocked(f"{where} holds what must not be sent: {name}", pattern=name)
        return text


class _Kept:
    """A text that comes in pieces: its end is kept back, because something may begin there."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns, self._rest = patterns, ""

    def feed(self, text: str) -> str:
        self._rest += text
        # Nothing that is looked for begins or ends within a word, unless it is as long as a text can be kept.
        at = max(self._rest.rfind("\n"), self._safe())
        if at <= 0:
            return ""
        ready, self._rest = self._rest[:at], self._rest[at:]
        return self._patterns.checked(ready, "the answer")

    def end(self) -> str:
        ready, self._rest = self._rest, ""
        return self._patterns.checked(ready, "the answer")

    def _safe(self) -> int:
        """Where a text may be cut: at the last blank that no pattern could stretch over."""
        found = re.search(r"\s(?=[^\s]*$)", self._rest)
        if found is None:
            return len(self._rest) - _LONGEST
        before = self._rest[: found.start()]
        # Numbers in groups, such as cards, hold blanks.
        tail = re.search(r"[\d+A-Z][\dA-Z ()-]*$", before[-_LONGEST:])
        return found.start() - (len(tail[0]) if tail else 0)


def _masked(name: str, found: "re.Match[str]") -> str:
    return f"[{name}]" if _is_real(found, name) else found[0]


def _is_real(found: "re.Match[str]", name: str) -> bool:
    if name != "cards":
        return True
    digits = [int(one) for one in found[0] if one.isdigit()]  # ISO/IEC 7812: the Luhn check
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
