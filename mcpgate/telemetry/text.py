"""Makes untrusted text safe for a terminal, a log or one line of a page. Pure."""

import re

_UNSEEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""C0, DEL and C1 (which move the cursor or end a line), marks that change the text direction, line and paragraph
separators, lone surrogates (which cannot be encoded). The caller decides about tab and newline."""
_IN_LINES = re.compile(f"[{_UNSEEN}]")
_IN_ONE_LINE = re.compile(rf"[{_UNSEEN}\t\n]")
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def visible(text: str, lines: bool = False, limit: int | None = None) -> str:
    """The text with everything unsafe for a terminal or a log escaped: `\\x1b`, `\\u202e`. `lines`: newlines and tabs
    stay. `limit`: the most characters to read; the rest becomes `…`."""
    if limit is not None and len(text) > limit:
        text = f"{text[: max(0, limit - 1)]}…"
    return (_IN_LINES if lines else _IN_ONE_LINE).sub(_escaped, text)


def one_line(text: str, limit: int = 200) -> str:
    """The text as one line of a page: runs of white space become one space, the rest as in `visible`."""
    return visible(" ".join(text[: 4 * limit].split()), limit=limit)


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return _SHORT.get(char) or (f"\\x{ord(char):02x}" if char < "\u0100" else f"\\u{ord(char):04x}")
