"""What a server offers beside its tools, as functions of the server in code: `files.resources()`,
`files.read_resource(uri)`, `files.prompts()`, `files.get_prompt(name, …)`. A tool of the same name hides them."""

from collections.abc import Mapping
from typing import Any, Literal

from mcpgate.catalog.catalog import Server
from mcpgate.codemode.values import KeepData, content_parts
from mcpgate.errors import InvalidRequest
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.proxy.resources import Resources

Name = Literal["resources", "read_resource", "prompts", "get_prompt"]
NAMES: Mapping[str, tuple[str, str]] = {
    "resources": ("resources", "() -> list[dict] — what can be read: uri or uriTemplate, name, mimeType, …"),
    "read_resource": ("resources", "(uri: str) -> str — text; binary contents are handles"),
    "prompts": ("prompts", "() -> list[dict] — name, description, arguments"),
    "get_prompt": ("prompts", "(name: str, **arguments: str) -> list[dict] — messages: role, content"),
}
"""Name → the capability of the server that it takes, and how it is called."""
_SHOWN = ("uri", "uriTemplate", "name", "title", "description", "mimeType", "size", "arguments")


class Attachments:
    """Calls these functions."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def names_of(self, caller: Caller, server: Server) -> list[str]:
        """Those that a server has."""
        return [
            name
            for name, (capability, _) in NAMES.items()
            if name not in server.accepted and self._resources.has(caller, server, capability)
        ]

    async def call(
        self,
        context: RequestContext,
        server: Server,
        name: str,
        given: list[Any],
        named: dict[str, Any],
        keep: KeepData,
    ) -> Any:
        """The function's value. Raises InvalidRequest for wrong arguments, NotAllowed, the gate's refusals,
        UpstreamError, RpcError."""
        parameter = {"read_resource": "uri", "get_prompt": "name"}.get(name)
        values = list(given)
        if parameter is None:
            if given or named:
                raise InvalidRequest(f"{server.ident}.{name} takes no arguments")
        elif parameter in named:
            values.insert(0, named.pop(parameter))
        if parameter is not None and (len(values) != 1 or not isinstance(values[0], str)):
            raise InvalidRequest(f"{server.ident}.{name}{NAMES[name][1].partition(' — ')[0]}")
        if name == "resources":
            found = [*await self._listed(context, server, "resources")]
            return [*found, *await self._listed(context, server, "resourceTemplates")]
        if name == "prompts":
            return await self._listed(context, server, "prompts")
        if name == "read_resource":
            if named:
                raise InvalidRequest(f"{server.ident}.read_resource takes only the uri")
            return await self._read(context, server, values[0], keep)
        arguments = {key: value if isinstance(value, str) else str(value) for key, value in named.items()}
        params = {"name": values[0], "arguments": arguments}
        result = await self._resources.request(context, server, "prompts/get", params)
        messages = result.get("messages")
        return [_message(m, keep) for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []

    async def _listed(self, context: RequestContext, server: Server, what: Any) -> list[dict[str, Any]]:
        items = await self._resources.listed_for(context, server, what)
        return [{key: item[key] for key in _SHOWN if key in item} for item in items]

    async def _read(self, context: RequestContext, server: Server, uri: str, keep: KeepData) -> Any:
        result = await self._resources.request(context, server, "resources/read", {"uri": uri})
        contents = result.get("contents")
        blocks = [{"type": "resource", "resource": c} for c in contents] if isinstance(contents, list) else []
        parts = content_parts(blocks, keep)
        return parts[0] if len(parts) == 1 else parts


def _message(message: dict[str, Any], keep: KeepData) -> dict[str, Any]:
    parts = content_parts(message.get("content"), keep)
    return {"role": message.get("role"), "content": parts[0] if len(parts) == 1 else parts}
