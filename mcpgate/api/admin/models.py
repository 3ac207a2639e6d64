"""The part of the admin API that is about models: where a request would go, and how targets fare."""

from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from mcpgate.api.http.routing import Call, Reply, Route, json_reply
from mcpgate.gateway import Gateway
from mcpgate.governance.admin import parse
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.llm.asked import Asked
from mcpgate.llm.metering import Size


class Wanted(BaseModel):
    """A request that is not sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=512)
    """As the client would name it."""
    key: str | None = None
    user: str | None = None
    team: str | None = None
    customer: str | None = None
    metadata: dict[str, str] = {}
    session: str = ""
    stream: bool = False
    tools: bool = False
    images: bool = False
    input_tokens: int = Field(default=0, ge=0, le=100_000_000)
    max_tokens: int | None = Field(default=None, ge=1, le=100_000_000)
    budget_used: float | None = Field(default=None, ge=0)
    """The share of the fullest budget, for routes that look at it."""

    def caller(self) -> Caller:
        return Caller(
            self.key or LOCAL.id,
            user=self.user,
            team=self.team,
            customer=self.customer,
            grants=LOCAL.grants,
            metadata=self.metadata,
        )

    def asked(self) -> Asked:
        return Asked(
            *("chat", b"", {}, self.model),
            stream=self.stream,
            max_tokens=self.max_tokens,
            tools=self.tools,
            images=self.images,
            session=self.session,
            size=Size(0, self.input_tokens),
        )


class ModelRoutes:
    """Answers /api/models."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/models", "List the aliases and the providers", self._list, for_realms=True),
            Route("GET", "/api/models/targets", "List the targets of all aliases and how they fare", self._targets,
                  for_realms=True),
            Route("POST", "/api/models/explain", "Say where a request would go, and why", self._explain, Wanted),
        ]  # fmt: skip

    async def _list(self, call: Call) -> Reply:
        chat, caller = self._gateway.chat, call.caller
        aliases = [
            {"name": name, "strategy": model.strategy, "routes": len(model.routes), "on_budget": model.on_budget,
             "targets": [target.name for target in chat.routes().all_of(name)]}
            for name, model in chat.config.models.items()
            if caller.realm is None or chat.may_use(caller, name)
        ]  # fmt: skip
        providers = [
            {"name": name, "type": provider.type}
            for name, provider in chat.config.providers.items()
            if caller.realm is None or chat.may_use_provider(caller, name)
        ]
        return json_reply({"aliases": aliases, "providers": providers})

    async def _targets(self, call: Call) -> Reply:
        chat, caller = self._gateway.chat, call.caller
        seen = None if caller.realm is None else set(chat.names(caller))
        return json_reply({"targets": [one for one in chat.health() if seen is None or one["target"] in seen]})

    async def _explain(self, call: Call) -> Reply:
        wanted = parse(Wanted, call.body)
        targets, steps = self._gateway.chat.explain(wanted.caller(), wanted.asked(), wanted.budget_used)
        return json_reply({"targets": [one.name for one in targets], "steps": [asdict(step) for step in steps]})
