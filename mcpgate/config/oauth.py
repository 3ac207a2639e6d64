"""The `server.oauth` section: whose access tokens the gateway accepts, and what they may do. Every right of a token is
that of a virtual key, which its claims choose."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from mcpgate.addresses import parse_address
from mcpgate.config.base import Model
from mcpgate.config.governance import KeyId, Patterns

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"),
)
"""All asymmetric: whoever can check a signature must not be able to make one."""
PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def _address(url: str) -> str:
    parts = urlsplit(url)
    try:
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("https", "http") or parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{url[:200]!r} must be an address such as https://login.example.com")
    seen = parse_address(host)
    if parts.scheme == "http" and host != "localhost" and not (seen is not None and seen.is_loopback):
        raise ValueError(f"{url[:200]!r} must be HTTPS, because keys that are read from it decide who may call")
    return url


def _template(text: str) -> str:
    if re.search(r"[{}]", PLACEHOLDER.sub("", text)) or any(c in "|/" or ord(c) < 32 for c in text):
        raise ValueError(f"{text!r} must be text with claims in braces, e.g. '{{email}}', and without '|' and '/'")
    return text


def _scope(name: str) -> str:
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}", name):
        raise ValueError(f"{name[:80]!r} must be a scope: printable ASCII without spaces, quotes and backslashes")
    return name


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Address = Annotated[str, Field(max_length=2048), AfterValidator(_address)]
Template = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_template)]
ClaimName = Annotated[str, Field(min_length=1, max_length=256)]
Scopes = Annotated[tuple[Annotated[str, AfterValidator(_scope)], ...], BeforeValidator(_listed)]
Audience = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=2048)], ...],
    BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...]),
]


class KeyRuleConfig(Model):
    """Chooses the key whose rights a token has."""

    key: KeyId
    """A virtual key: its grants, limits, bundle, budget and rate limits are those of the token."""
    when: dict[ClaimName, Patterns] = {}
    """Claim to globs. One glob of each claim must match. Of a list, or of the words in `scope`, one value must match.
    `realm_access.roles` means `roles` inside `realm_access`. Empty: every token of the issuer."""


class ClaimsConfig(Model):
    """What the claims of a token say about its caller. In texts, `{NAME}` stands for a claim."""

    keys: Annotated[tuple[KeyRuleConfig, ...], Field(min_length=1)]
    """Rules in order. The first that matches chooses the key. A token that none matches is refused."""
    user: Template = "{sub}@{issuer}"
    """Whose token it is. `{issuer}` is the issuer's `name`, so that two issuers' users stay apart. Without it, equal
    texts are the same user, whichever issuer says so."""
    team: Template | None = None
    """The user's team, which must be declared. Default: that of the key, or of the declared user."""
    customer: Template | None = None
    """The user's customer, which must be declared. Default: that of the key or the team."""
    tools: ClaimName | None = None
    """A claim that lists globs over `server.tool`. Of what the key grants, the token may call only what matches."""
    models: ClaimName | None = None
    """The same over model aliases and `provider/model`."""
    meta_tools: ClaimName | None = None
    """The same over the four meta-tools."""

    @field_validator("user")
    @classmethod
    def _personal(cls, text: str) -> str:
        if not any(name != "issuer" for name in PLACEHOLDER.findall(text)):
            raise ValueError(f"{text!r} must name a claim, e.g. '{{sub}}', or all tokens would be the same user's")
        return text


class IssuerConfig(Model):
    """An authorization server whose tokens are accepted. Its address alone is short for `{issuer: …}`."""

    issuer: Address
    """Its issuer identifier, as in the tokens' `iss`."""
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$")] | None = None
    """Tells its users from those of other issuers. Default: its host and path, with `:` for `/`."""
    jwks_uri: Address | None = None
    """Where its keys are. Default: what its metadata say (RFC 8414, OpenID Connect Discovery)."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ALGORITHMS
    """What its tokens may be signed with."""
    audience: Audience = ()
    """Instead of the common `audience`."""
    claims: ClaimsConfig | None = None
    """Instead of the common `claims`."""

    @model_validator(mode="before")
    @classmethod
    def _accept_address(cls, data: Any) -> Any:
        return {"issuer": data} if isinstance(data, str) else data

    @property
    def shown_name(self) -> str:
        """`name`, or its default."""
        parts = urlsplit(self.issuer)
        return self.name or re.sub(r"[^a-z0-9._-]", ":", f"{parts.netloc}{parts.path.rstrip('/')}".lower())


class OAuthConfig(Model):
    """The gateway as an OAuth protected resource: JWT access tokens are accepted in place of virtual keys."""

    issuers: Annotated[tuple[IssuerConfig, ...], Field(min_length=1)]
    """The authorization servers whose tokens are accepted."""
    audience: Audience = ()
    """What a token's `aud` must name, one of these. Default: the address that is called, such as
    `https://gateway.example.com/mcp`, below `public_url`."""
    scopes: Scopes = ()
    """The scopes that every token must have. Clients are told to ask for them."""
    scopes_supported: Scopes = ()
    """Further scopes that the metadata of the resource list."""
    claims: ClaimsConfig | None = None
    """What tokens say about their callers. Needed unless every issuer has its own."""
    leeway_s: float = Field(default=30.0, ge=0, le=300)
    """How far the clocks of issuers may differ from this machine's."""

    @model_validator(mode="after")
    def _consistent(self) -> "OAuthConfig":
        for what, values in (
            ("issuer", [issuer_key(one.issuer) for one in self.issuers]),
            ("name", [one.shown_name for one in self.issuers]),
        ):
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise ValueError(f"issuers: two have the {what} {twice!r}")
        if self.claims is None and (bare := next((one for one in self.issuers if one.claims is None), None)):
            raise ValueError(f"`claims` is needed: it says what tokens of {bare.issuer} may do")
        return self

    def find_issuer(self, iss: object) -> IssuerConfig | None:
        """The issuer that a token names in `iss`."""
        wanted = issuer_key(iss) if isinstance(iss, str) else None
        return next((one for one in self.issuers if issuer_key(one.issuer) == wanted), None)

    def claims_of(self, issuer: IssuerConfig) -> ClaimsConfig:
        found = issuer.claims or self.claims
        assert found is not None  # _consistent
        return found

    def keys(self) -> frozenset[str]:
        """Every key that tokens may act with."""
        return frozenset(rule.key for one in self.issuers for rule in self.claims_of(one).keys)


def issuer_key(issuer: str) -> str:
    """Issuers are compared as they are; a root is the same with and without its slash, as documents in the field
    disagree about it."""
    return issuer[:-1] if issuer.endswith("/") and issuer.count("/") == 3 else issuer
