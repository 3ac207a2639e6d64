"""Guardrails: code of your own that looks at what is asked and answered, and may change or refuse it.

A guardrail is a class that the configuration names as `package.module:Class`. It is made once, with its `settings`. See
patterns.py for one."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mcpgate.config.llm import GuardrailConfig, LlmConfig
from mcpgate.errors import ConfigError, McpgateError
from mcpgate.governance.callers import Caller


class Blocked(McpgateError):
    """A guardrail has refused a request or its answer."""

    code, http_status = "blocked", 400


@dataclass(frozen=True, slots=True)
class About:
    """The request that a guardrail is asked about."""

    caller: Caller
    model: str
    """As the client named it."""
    format: str
    """`chat`, `responses`, `messages`, `gemini` or `embeddings`."""


class Filter(Protocol):
    """Looks at the text of one part of an answer while it is written."""

    def feed(self, text: str) -> str:
        """What may be passed on by now; the rest is kept back. Raises Blocked."""
        ...

    def end(self) -> str:
        """The rest. Raises Blocked."""
        ...


class Guardrail(Protocol):
    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings that make no sense."""
        ...

    async def before(self, texts: Sequence[str], about: About) -> Sequence[str]:
        """Before a provider is asked. `texts`: all that the request says: instructions, messages, results of tools.
        Returns as many, changed or not. Raises Blocked."""
        ...

    def during(self, about: About) -> Filter | None:
        """For each part of an answer, streamed or not; None if answers are not looked at."""
        ...

    async def after(self, text: str, about: About) -> None:
        """After the answer, with all of its text. A whole answer can still be Blocked; a stream has been sent."""
        ...


class Guardrails:
    """Those of one configuration, in its order."""

    def __init__(self, config: LlmConfig) -> None:
        """Raises ConfigError for what cannot be loaded."""
        self._all = [_made(number, one) for number, one in enumerate(config.guardrails)]

    def __bool__(self) -> bool:
        return bool(self._all)

    async def before(self, texts: Sequence[str], about: About) -> Sequence[str]:
        for one in self._all:
            count, texts = len(texts), await one.before(texts, about)
            if len(texts) != count:
                raise Blocked(f"the guardrail {type(one).__name__} returned {len(texts)} texts for {count}")
        return texts

    def during(self, about: About) -> "Filter | None":
        filters = [found for one in self._all if (found := one.during(about)) is not None]
        return _Chain(filters) if filters else None

    async def after(self, text: str, about: About) -> None:
        for one in self._all:
            await one.after(text, about)


class _Chain:
    """Several filters, one after the other."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = filters

    def feed(self, text: str) -> str:
        for one in self._filters:
            text = one.feed(text)
        return text

    def end(self) -> str:
        text = ""
        for one in self._filters:
            text = (one.feed(text) if text else "") + one.end()
        return text


def _made(number: int, config: GuardrailConfig) -> Guardrail:
    where = f"llm.guardrails[{number}]"
    module, _, name = config.use.partition(":")
    try:
        made: Guardrail = getattr(importlib.import_module(module), name)(config.settings)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}.use: {config.use!r} cannot be loaded: {error}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}.settings: {error}") from error
    return made
