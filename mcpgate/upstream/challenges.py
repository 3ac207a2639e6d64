"""What servers say when they refuse a request with 401 or 403, and what people can do about it. Pure."""

import re
import shlex
from dataclasses import dataclass

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.untrusted import one_line

_LONGEST_HEADER = 8192
_PART = re.compile(r'([\w!#$%&\'*+.^`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,500}")
_MOST_SCOPES = 100


class SignInNeeded(UpstreamError):
    """The server wants a token that it accepts, and only a person can get one. `ended`: it refused the one it got."""

    def __init__(self, message: str, ended: bool, **data: object) -> None:
        super().__init__(message, **data)
        self.ended = ended


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a refusal asks for (RFC 6750, RFC 9728)."""

    status: int
    bearer: bool = False
    """Whether it asks for a token at all."""
    error: str = ""
    scope: str = ""
    resource_metadata: str = ""

    @property
    def wants_more(self) -> bool:
        """Whether the token is fine but may do too little."""
        return self.status == 403 and self.error == "insufficient_scope"


def parse_challenge(status: int, header: str) -> Challenge:
    """What a refusal's `WWW-Authenticate` says."""
    scheme, found = "", dict[str, str]()
    bearer = False
    for match in _PART.finditer(header[:_LONGEST_HEADER]):
        name, quoted, plain = match.groups()
        if quoted is None and plain is None:
            scheme = name.lower()
            bearer = bearer or scheme == "bearer"
        elif scheme == "bearer":
            found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain)
    return Challenge(
        status=status,
        bearer=bearer,
        error=one_line(found.get("error", ""), 100),
        scope=scopes(found.get("scope", "")),
        resource_metadata=found.get("resource_metadata", ""),
    )


def scopes(*texts: object) -> str:
    """The scopes of several texts, each once, in order."""
    words = [word for text in texts if isinstance(text, str) for word in text.split()]
    return " ".join(list(dict.fromkeys(word for word in words if _SCOPE.fullmatch(word)))[:_MOST_SCOPES])


def has_own_credentials(config: UpstreamConfig) -> bool:
    """Whether the configuration itself says what to send."""
    return any(name.lower() == "authorization" for name in config.headers)


def login_command(name: str, subject: str = "") -> str:
    """The command that signs in, for a caller without a key as for the gateway itself."""
    user = f" --user {shlex.quote(subject.replace(chr(10), '/'))}" if subject not in ("", "local") else ""
    return f"mcpgate auth login {shlex.quote(name)}{user}"


def remedy(name: str, config: UpstreamConfig, challenge: Challenge, signed_in: bool, way_in: str) -> str:
    """What to do about a refusal. `way_in`: the command or the address to sign in with."""
    where = f"mcpServers.{name}"
    if has_own_credentials(config):
        if challenge.status == 401:
            return f"check headers.Authorization of {where}: the server did not accept it"
        more = f" (it wants the scopes {challenge.scope})" if challenge.scope else ""
        return f"the credentials in headers.Authorization of {where} do not allow this{more}"
    if config.auth is not None and config.auth.type != "oauth":
        if challenge.wants_more:
            return (
                f"the client of {where}.auth is not allowed to do this; add the scopes {challenge.scope} to auth.scopes"
            )
        return f"the server does not accept the client of {where}.auth"
    if challenge.wants_more:
        return f"grant more rights (scopes: {challenge.scope or 'not named'}): {way_in}"
    if challenge.status == 401:
        if config.auth is None and not challenge.bearer and not signed_in:
            return f"sign in: {way_in}; or set headers.Authorization of {where}"
        return f"sign in: {way_in}"
    if signed_in:
        return f"the signed-in account is not allowed to do this; to use another: {way_in}"
    return f"the server refuses the gateway; set headers of {where}, or sign in: {way_in}"
