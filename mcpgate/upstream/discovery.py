"""Finds out how to sign in to a server: its protected resource metadata (RFC 9728), and the metadata of its
authorization server (RFC 8414, OpenID Connect Discovery). Nothing that is read is trusted: bodies are bounded,
nothing is followed to another origin, and what names itself wrongly is not used.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2

from mcpgate import __version__, jsontext
from mcpgate.config.auth import AuthConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.bodies import decoded, tls
from mcpgate.upstream.challenges import Challenge, scopes
from mcpgate.upstream.secrets import place
from mcpgate.upstream.untrusted import one_line

_MAX_BODY = 256 * 1024
_ANSWER_S = 15.0
_MAX_REDIRECTS = 3
_LONGEST_URL = 2048
_MAX_SAID = 300


class SignInFailed(UpstreamError):
    """Signing in cannot go on. `error`: the authorization server's own code, if it gave one."""

    def __init__(self, message: str, error: str = "", transient: bool = False) -> None:
        super().__init__(message)
        self.error, self.transient = error, transient


@dataclass(frozen=True, slots=True)
class Authority:
    """An authorization server, as it describes itself, and what the resource says about using it."""

    issuer: str
    """Exactly as in its metadata: answers are compared with it."""
    resource: str
    """What tokens are asked for, exactly as published."""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    device_endpoint: str = ""
    scopes: str = ""
    """What to ask for, as the resource says."""
    offline_access: bool = False
    """Whether refresh tokens have a scope of their own."""
    methods: tuple[str, ...] | None = None
    """How clients may prove who they are."""
    pkce: bool | None = None
    """Whether S256 is supported; None where nothing is said."""
    takes_metadata_urls: bool = False
    names_itself: bool = False
    """Whether its answers carry `iss`."""


class UntrustedWeb:
    """Requests to addresses that a server has named."""

    def __init__(self, server_url: str, client: httpx2.AsyncClient) -> None:
        self._server, self._client = urlsplit(server_url), client

    def checked(self, url: Any, what: str) -> str:
        """An address that may be used: HTTPS, or HTTP where the server itself is reached like that on the same machine.
        Raises SignInFailed."""
        if not isinstance(url, str) or len(url) > _LONGEST_URL:
            raise SignInFailed(f"{what} is not an address")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise SignInFailed(f"{what} is not an address: {one_line(url, 100)}") from None
        if parts.username is not None or not host or parts.fragment:
            raise SignInFailed(f"{what} cannot be used: {one_line(place(url), 200)}")
        plain = self._server.scheme == "http" and (
            host == self._server.hostname or (_is_here(host) and _is_here(self._server.hostname or ""))
        )
        if parts.scheme != "https" and not (parts.scheme == "http" and plain):
            raise SignInFailed(f"{what} is not HTTPS: {one_line(place(url), 200)}")
        return url

    async def get(self, url: str, what: str) -> tuple[int, Any]:
        """The status and the JSON of a document."""
        return await self._ask("GET", self.checked(url, what), what)

    async def post(
        self, url: str, what: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> tuple[int, Any]:  # fmt: skip
        return await self._ask("POST", self.checked(url, what), what, data=form, json=json, headers=headers)

    async def _ask(self, method: str, url: str, what: str, **more: Any) -> tuple[int, Any]:
        headers = {"accept": "application/json", **(more.pop("headers", None) or {})}
        try:
            async with asyncio.timeout(_ANSWER_S):
                for _ in range(_MAX_REDIRECTS + 1):
                    request = self._client.build_request(method, url, headers=headers, **more)
                    response = await self._client.send(request, stream=True, follow_redirects=False)
                    try:
                        if method != "GET" or not response.has_redirect_location:
                            return response.status_code, await _json(response, what)
                        target = self.checked(str(response.request.url.join(response.headers["location"])), what)
                        if _origin(target) != _origin(url):
                            raise SignInFailed(f"{what} redirects to {place(target)}, which is not followed")
                        url = target
                    finally:
                        await response.aclose()
            raise SignInFailed(f"{what} redirects too often")
        except TimeoutError:
            raise SignInFailed(f"{what}: no answer within {_ANSWER_S:g} s", transient=True) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            reason = one_line(str(error) or type(error).__name__, 200)
            raise SignInFailed(f"{what} at {place(url)}: {reason}", transient=True) from error


@asynccontextmanager
async def untrusted_web(server_url: str) -> AsyncIterator[UntrustedWeb]:
    headers = {"user-agent": f"mcpgate/{__version__}", "accept-encoding": "identity"}
    async with httpx2.AsyncClient(headers=headers, verify=tls(), timeout=_ANSWER_S) as client:
        yield UntrustedWeb(server_url, client)


async def discover(web: UntrustedWeb, url: str, config: AuthConfig, challenge: Challenge | None) -> Authority:
    """Whom to ask for tokens for a server, and for what. Raises SignInFailed."""
    resource = await _resource(web, url, challenge)
    if resource is None and config.metadata_url is None and config.issuer is None:
        # What servers of early 2025 do: they are their own authorization server.
        issuer = _root(url)
        return await _authority(web, issuer, [f"{issuer}/.well-known/oauth-authorization-server"], url, "")
    named = resource.get("authorization_servers") if resource is not None else None
    servers = [server for server in named if isinstance(server, str)] if isinstance(named, list) else []
    wanted = scopes(*(resource or {}).get("scopes_supported") or ()) if _is_list(resource, "scopes_supported") else ""
    identifier = resource.get("resource") if resource is not None else None
    target = identifier if isinstance(identifier, str) else urlunsplit(urlsplit(url)._replace(fragment=""))
    issuer = config.issuer or (servers[0] if servers else _root(url))
    if config.issuer is not None and servers and not any(_same_issuer(config.issuer, server) for server in servers):
        raise SignInFailed(
            f"the server names {', '.join(place(server) for server in servers[:3])} as its authorization server, "
            f"but auth.issuer is {place(config.issuer)}"
        )
    addresses = [config.metadata_url] if config.metadata_url else _metadata_addresses(issuer)
    expected = None if config.metadata_url and config.issuer is None else issuer
    return await _authority(web, expected, addresses, target, wanted)


async def _resource(web: UntrustedWeb, url: str, challenge: Challenge | None) -> dict[str, Any] | None:
    what = "the protected resource metadata"
    path = urlsplit(url).path.rstrip("/")
    root = f"{_root(url)}/.well-known/oauth-protected-resource"
    addresses = [root + path] if path else []
    if challenge is not None and challenge.resource_metadata:
        addresses.insert(0, challenge.resource_metadata)
    for address in [*addresses, root]:
        status, found = await web.get(address, what)
        if status >= 500 or status == 429:
            raise SignInFailed(f"{what}: HTTP {status}", transient=True)
        if status != 200 or not isinstance(found, dict):
            continue
        resource = found.get("resource")
        if resource is not None and not (isinstance(resource, str) and _covers(resource, url)):
            raise SignInFailed(f"{what} is that of {one_line(place(str(resource)), 200)}, not of this server")
        return found
    return None


async def issuer_metadata(web: UntrustedWeb, issuer: str) -> dict[str, Any]:
    """What an issuer says about itself. Raises SignInFailed."""
    return await _metadata(web, issuer, _metadata_addresses(issuer))


async def _metadata(web: UntrustedWeb, issuer: str | None, addresses: list[str]) -> dict[str, Any]:
    what = "the authorization server's metadata"
    for address in addresses:
        status, found = await web.get(address, what)
        if status >= 500 or status == 429:
            raise SignInFailed(f"{what}: HTTP {status}", transient=True)
        if status == 200 and isinstance(found, dict):
            break
    else:
        raise SignInFailed(f"{what} was not found at {', '.join(map(place, addresses))}")
    named = found.get("issuer")
    if not isinstance(named, str) or (issuer is not None and not _same_issuer(named, issuer)):
        found_of, wanted_of = (one_line(place(str(one)), 200) for one in (named, issuer))
        raise SignInFailed(f"{what} is that of {found_of}, but {wanted_of} was asked for")
    return found


async def _authority(
    web: UntrustedWeb, issuer: str | None, addresses: list[str], resource: str, wanted: str
) -> Authority:
    found = await _metadata(web, issuer, addresses)

    def endpoint(name: str) -> str:
        value = found.get(name)
        return web.checked(value, f"its {name}") if value is not None else ""

    methods = found.get("token_endpoint_auth_methods_supported")
    challenges = found.get("code_challenge_methods_supported")
    supported = found.get("scopes_supported")
    return Authority(
        issuer=found["issuer"],
        resource=resource,
        authorization_endpoint=endpoint("authorization_endpoint"),
        token_endpoint=endpoint("token_endpoint"),
        registration_endpoint=endpoint("registration_endpoint"),
        revocation_endpoint=endpoint("revocation_endpoint"),
        device_endpoint=endpoint("device_authorization_endpoint"),
        scopes=wanted,
        offline_access=isinstance(supported, list) and "offline_access" in supported,
        methods=tuple(map(str, methods)) if isinstance(methods, list) else None,
        pkce="S256" in challenges if isinstance(challenges, list) else None,
        takes_metadata_urls=found.get("client_id_metadata_document_supported") is True,
        names_itself=found.get("authorization_response_iss_parameter_supported") is True,
    )


def said(found: Any) -> tuple[str, str]:
    """The code of an OAuth error, and all it says."""
    if not isinstance(found, dict):
        return "", ""
    code = one_line(found.get("error"), 100) if isinstance(found.get("error"), str) else ""
    about = one_line(found.get("error_description"), _MAX_SAID) if found.get("error_description") else ""
    return code, f"{code}: {about}" if code and about else code or about


def _metadata_addresses(issuer: str) -> list[str]:
    """Where the metadata of an issuer may be, in the order in which to look."""
    path, root = urlsplit(issuer).path.rstrip("/"), _root(issuer)
    if not path:
        return [f"{root}/.well-known/oauth-authorization-server", f"{root}/.well-known/openid-configuration"]
    return [
        f"{root}/.well-known/oauth-authorization-server{path}",
        f"{root}/.well-known/openid-configuration{path}",
        f"{root}{path}/.well-known/openid-configuration",
    ]


def _covers(resource: str, url: str) -> bool:
    """Whether a protected resource is the server or what it is a part of."""
    try:
        theirs, ours = urlsplit(resource), urlsplit(url)
        same = _origin(resource) == _origin(url)
    except ValueError:
        return False
    path, inner = theirs.path.rstrip("/"), ours.path.rstrip("/")
    return same and (inner == path or inner.startswith(path + "/"))


def _same_issuer(one: str, other: str) -> bool:
    """Issuers are compared as they are; a root is the same with and without its slash, as metadata documents in the
    field disagree about it."""
    if one == other:
        return True
    return one.rstrip("/") == other.rstrip("/") and not urlsplit(one).path.strip("/") and "?" not in one + other


def _root(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _is_list(found: dict[str, Any] | None, name: str) -> bool:
    return found is not None and isinstance(found.get(name), list)


async def _json(response: httpx2.Response, what: str) -> Any:
    """The body as JSON; None where it is none."""
    body = bytearray()
    async with contextlib.aclosing(decoded(response)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > _MAX_BODY:
                raise SignInFailed(f"{what} is over {_MAX_BODY:,} bytes")
    try:
        return jsontext.loads(bytes(body), "replace")
    except ValueError:
        return None
