"""The gateway as an OAuth protected resource (RFC 9728): the addresses that access tokens are for, and what clients are
told about where to get them."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from mcpgate.api.http.exchange import Exchange
from mcpgate.api.http.routing import Face, Handler
from mcpgate.config.settings import Settings, is_loopback
from mcpgate.errors import InvalidKey, McpgateError, NotFound
from mcpgate.governance.tokens import canonical

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_MCP = re.compile(r"/(mcp|sse)(/[A-Za-z0-9][A-Za-z0-9._-]{0,63})?")
"""Resources of their own: tokens can be for one bundle only."""
_NOT_QUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_MAX_DESCRIPTION = 500
_CACHE_S = 300


class Resource(Face):
    """What is known about the resource while the configuration names issuers. Answers requests for its metadata."""

    def __init__(self, settings: Settings, host: str) -> None:
        """`host`: the address listened on."""
        self._settings, self._host = settings, host.lower()
        self._public_url = settings.config.server.public_url

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if self._settings.config.server.oauth is None:
            return None
        is_ours = path == _WELL_KNOWN or path.startswith(f"{_WELL_KNOWN}/")
        return {"GET": self._describe} if is_ours else None

    def base(self, http: Exchange) -> str | None:
        """The address of the gateway: `public_url`, or the Host header where that is a name that the configuration
        gives it, or one of this machine's. None for another: whoever has a token for another resource can send that
        resource's name."""
        server = self._settings.config.server
        if self._public_url is not None:
            return self._public_url
        try:
            parts = urlsplit(f"//{http.headers.get('host', '').lower()}")
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return None
        shown = f"[{name}]" if ":" in name else name
        own = (http.scope.get("server") or (None, None))[1]
        default = 443 if http.scheme == "https" else 80
        names = {one.lower() for one in server.allowed_hosts} - {"*"}
        # Of a proxy's clients, only itself may mean this machine by a name of it.
        is_here = is_loopback(name) and is_loopback(http.address or "")
        is_ours = is_here if is_loopback(self._host) else name == self._host
        if not name or not (
            (port is not None and f"{shown}:{port}" in names)
            or (port in (None, default, own) and name in names)
            or (is_ours and (port or default) == own)
        ):
            return None
        return f"{http.scheme}://{shown}{'' if port in (None, default) else f':{port}'}{http.root}"

    def sent_to(self, http: Exchange, path: str) -> tuple[str, ...]:
        """The addresses that a token for a path may be for: its own, and those above it."""
        base = self.base(http)
        if base is None:
            return ()
        found = _MCP.fullmatch(path)
        paths = [path, f"/{found[1]}", ""] if found else [""]
        return tuple(dict.fromkeys(canonical(base + one) for one in paths))

    def challenge(self, http: Exchange, error: McpgateError) -> dict[str, str]:
        """The header of a refusal that a token, or another one, would help against (RFC 6750, RFC 9728)."""
        oauth, needed = self._settings.config.server.oauth, error.data.get("needed_scopes")
        if oauth is None or not (error.http_status == 401 or needed):
            return {}
        facts = {"realm": "mcpgate"}
        if needed or isinstance(error, InvalidKey):
            facts["error"] = "insufficient_scope" if needed else "invalid_token"
            facts["error_description"] = error.message[:_MAX_DESCRIPTION].replace('"', "'")
        if scopes := needed or oauth.scopes:
            facts["scope"] = " ".join(scopes)
        if (base := self.base(http)) is not None:
            path = "/sse" if http.path == "/messages" else http.path
            facts["resource_metadata"] = f"{base}{_WELL_KNOWN}{path if _MCP.fullmatch(path) else ''}"
        shown = ", ".join(f'{name}="{_NOT_QUOTABLE.sub("?", value)}"' for name, value in facts.items())
        return {"www-authenticate": f"Bearer {shown}"}

    async def _describe(self, http: Exchange) -> None:
        oauth, base = self._settings.config.server.oauth, self.base(http)
        if oauth is None or base is None:
            raise NotFound(
                "the gateway does not know by which address it is called: set server.public_url, or name this host in "
                "server.allowed_hosts"
            )
        path = http.path.removeprefix(_WELL_KNOWN)
        prefix = urlsplit(base).path
        # Clients put the well-known part before the whole path, also where a proxy serves the gateway under a prefix.
        if not (http.root and http.scope["path"].startswith(f"{http.root}/")) and f"{path}/".startswith(f"{prefix}/"):
            path = path.removeprefix(prefix)
        if path and not _MCP.fullmatch(path):
            raise NotFound(f"there is no resource {path[:200]}; MCP is served at /mcp and /sse")
        described: dict[str, Any] = {
            "resource": base + path,
            "authorization_servers": [issuer.issuer for issuer in oauth.issuers],
            "bearer_methods_supported": ["header"],
            "resource_name": "mcpgate",
        }
        if scopes := list(dict.fromkeys((*oauth.scopes, *oauth.scopes_supported))):
            described["scopes_supported"] = scopes
        await http.respond(200, orjson.dumps(described), {"cache-control": f"max-age={_CACHE_S}"})
