"""The cost of usage. An unknown price is None, never zero: zero would look like a free call."""

import fnmatch
from collections.abc import Callable, Mapping
from decimal import Decimal

from mcpgate.governance.records import Request, Usage, to_nano

_MOST_REMEMBERED = 20_000
OfModel = Callable[[str, str, Usage, str | None], int | None]
"""(provider, model, usage, alias) → nano-dollars; None without a known price."""


class Prices:
    """The prices of one configuration."""

    def __init__(
        self,
        tools: Mapping[str, Mapping[str, Decimal]],
        execution_usd_per_s: Decimal | None,
        models: OfModel = lambda provider, model, usage, alias: None,
    ) -> None:
        """`tools`: server → glob over its tools' own names → US dollars per call; the first match counts."""
        self._models = models
        self._tools = {
            server: {glob: to_nano(usd) for glob, usd in prices.items()} for server, prices in tools.items() if prices
        }
        self._known: dict[tuple[str, str], int | None] = {}
        self._second = None if execution_usd_per_s is None else to_nano(execution_usd_per_s)

    def cost(self, request: Request, usage: Usage) -> int | None:
        """Nano-dollars; None if no price is known."""
        match request.kind:
            case "tool" | "resource":
                price = self._of_tool(request.server or "", request.tool or "")
                return None if price is None else price * usage.calls
            case "execution":
                # Running code on one's own machine is free unless a price is configured.
                return 0 if self._second is None else round(self._second * usage.seconds)
            case "meta":
                return 0
            case "chat" | "embedding" if request.provider is None:
                return 0  # its attempts have costs of their own
            case "chat" | "embedding":
                return self._models(request.provider or "", request.model or "", usage, request.alias)
        return None

    def _of_tool(self, server: str, tool: str) -> int | None:
        try:
            return self._known[server, tool]
        except KeyError:
            pass
        globs = self._tools.get(server, {}).items()
        price = next((nano for glob, nano in globs if fnmatch.fnmatchcase(tool, glob)), None)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.clear()
        self._known[server, tool] = price
        return price
