"""How one request uses the cache: what its headers ask for, and what the configuration makes of that. Pure."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from mcpgate.config.cache import CacheConfig, CacheRuleConfig, Mode, Scope
from mcpgate.errors import InvalidRequest
from mcpgate.governance.callers import Caller, matches_any

HEADER = "x-mcpgate-cache"
_MODES: tuple[Mode, ...] = ("use", "refresh", "no-store", "off")
_LONGEST_TTL_S = 366 * 86_400
MOST_TAGS = 16
TAG = r"^[A-Za-z0-9_.:/@-]{1,128}$"


class Wish(NamedTuple):
    """What a request's headers say."""

    mode: Mode | None = None
    ttl_s: float | None = None
    threshold: float | None = None
    tags: tuple[str, ...] = ()


NO_WISH = Wish()


class Policy(NamedTuple):
    """What holds for one request."""

    reads: bool
    """Whether the cache may answer it."""
    writes: bool
    """Whether its answer is kept."""
    ttl_s: float
    scope: Scope | None
    oldest_s: float = math.inf
    """The greatest age of an answer that it takes."""
    semantic: bool = False
    threshold: float | None = None
    tags: tuple[str, ...] = ()


def read_wish(headers: Mapping[str, str]) -> Wish:
    """Raises InvalidRequest."""
    if not any(name.startswith(HEADER) for name in headers):
        return NO_WISH
    mode = headers.get(HEADER)
    if mode is not None:
        mode = mode.strip().lower()
        if mode not in _MODES:
            raise InvalidRequest(f"the header {HEADER} is {mode[:40]!r}; it must be {', '.join(_MODES)}")
    tags = tuple(tag.strip() for tag in headers.get(f"{HEADER}-tag", "").split(",") if tag.strip())
    if len(tags) > MOST_TAGS or not all(re.fullmatch(TAG, tag) for tag in tags):
        what = f"at most {MOST_TAGS} tags, separated by commas, of letters, digits and _.:/@-"
        raise InvalidRequest(f"the header {HEADER}-tag must have {what}")
    return Wish(
        mode,
        _number(headers, f"{HEADER}-ttl", "seconds", _LONGEST_TTL_S),
        _number(headers, f"{HEADER}-threshold", "a similarity", 1),
        tags,
    )


def _number(headers: Mapping[str, str], name: str, what: str, most: float) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= most:
        raise InvalidRequest(f"the header {name} is {text[:40]!r}; it must be {what} above 0 and up to {most:,}")
    return number


def decide(config: CacheConfig, wish: Wish, caller: Caller, model: str, format: str, is_safe: bool) -> Policy | None:
    """None: without the cache. `is_safe`: whether a request may be answered by it without being asked for. A header
    decides what a rule leaves open: it neither reads nor keeps what the rule does not, and keeps it no longer."""
    if not config.enabled:
        return None
    rule = next((one for one in config.rules if _applies(one, caller, model, format)), _NO_RULE)
    said: list[Mode] = [mode for mode in (wish.mode, rule.mode) if mode is not None]
    modes = said or ["use" if is_safe else "off"]
    reads = all(mode in ("use", "no-store") for mode in modes)
    writes = all(mode in ("use", "refresh") for mode in modes)
    if not reads and not writes:
        return None
    semantic = config.semantic.enabled if rule.semantic is None else rule.semantic
    threshold = config.semantic.threshold if rule.threshold is None else rule.threshold
    ttl_s = min((ttl_s for ttl_s in (wish.ttl_s, rule.ttl_s) if ttl_s is not None), default=config.ttl_s)
    return Policy(
        reads=reads,
        writes=writes,
        ttl_s=ttl_s,
        scope=rule.scope or config.scope,
        # Others may have asked to keep the answer for longer than this request would.
        oldest_s=ttl_s + (config.stale_s if wish.ttl_s is None else 0.0),
        semantic=semantic,
        threshold=threshold if wish.threshold is None else max(wish.threshold, threshold or 0.0),
        tags=wish.tags,
    )


_NO_RULE = CacheRuleConfig()


def _applies(rule: CacheRuleConfig, caller: Caller, model: str, format: str) -> bool:
    for name, globs in rule.when.items():
        if name.startswith("metadata."):
            value = caller.metadata.get(name.removeprefix("metadata."))
        elif name == "key":
            value = caller.id
        else:
            value = {"model": model, "format": format}.get(name) or getattr(caller, name, None)
        if value is None or not matches_any(value, globs):
            return False
    return True
