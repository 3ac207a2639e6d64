"""placeholder until merge"""

import re

_P = re.compile(r"\b(?:my|our|mine|ours|me|i|i'm|i've|we|us)\b", re.I)
_T = re.compile(
    r"\b(?:today|now|current(?:ly)?|latest|yesterday|tomorrow|tonight|this (?:week|month|year|morning)|recent(?:ly)?)\b",
    re.I,
)


def is_personal(text: str) -> bool:
    return _P.search(text) is not None


def is_time_relative(text: str) -> bool:
    return _T.search(text) is not None
