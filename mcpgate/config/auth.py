"""The `auth` section of one server: how the gateway signs in to it with OAuth."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mcpgate.config.base import Model

_SPELLINGS = {
    "clientId": "client_id",
    "CLIENT_ID": "client_id",
    "clientSecret": "client_secret",
    "CLIENT_SECRET": "client_secret",
    "callbackPort": "redirect_port",
    "authServerMetadataUrl": "metadata_url",
    "clientMetadataUrl": "client_metadata_url",
}
"""Keys of Claude Code, Cursor, VS Code and Gemini CLI, and ours."""
_CLIENTS_ONLY = frozenset(
    ("enabled", "redirectUri", "authorizationUrl", "tokenUrl", "registrationUrl", "tokenParamName")
)
"""Keys of pasted entries that mean nothing here: endpoints are discovered, and the redirect address is ours."""


def _our_spelling(data: Mapping[str, Any]) -> dict[str, Any]:
    ours = {_SPELLINGS.get(key, key): value for key, value in data.items() if key not in _CLIENTS_ONLY}
    if isinstance(ours.get("scopes"), str):
        ours["scopes"] = ours["scopes"].split()
    return ours


class AuthConfig(Model):
    """How to get tokens. With `oauth`, a person signs in (`mcpgate auth login SERVER`); the other types need nobody."""

    type: Literal["oauth", "client_credentials", "private_key_jwt"] = "oauth"
    """`oauth`: a person signs in. `client_credentials`: with a client's id and secret. `private_key_jwt`: the same with
    a client's private key."""
    client_id: str | None = None
    """A client that is registered with the authorization server. Default: the gateway registers itself."""
    client_secret: str | None = Field(default=None, repr=False)
    """The secret of that client, if it has one."""
    private_key: str | None = Field(default=None, repr=False)
    """The client's private key in PEM, for `private_key_jwt`."""
    algorithm: str = "ES256"
    """What the private key signs with, e.g. `ES256` or `RS256`."""
    key_id: str | None = None
    """The key's id (`kid`), where the authorization server needs it."""
    scopes: tuple[str, ...] = ()
    """The scopes to ask for. Default: those that the server names."""
    issuer: str | None = None
    """The only authorization server that is accepted. Default: the one that the server names."""
    metadata_url: str | None = None
    """The address of the authorization server's metadata, for servers that do not name it."""
    client_metadata_url: str | None = None
    """The HTTPS address of a client id metadata document. Used as the client's id where the authorization server
    supports that."""
    redirect_port: int | None = Field(default=None, ge=1, le=65_535)
    """`mcpgate auth login` listens on this port, and the redirect address is `http://localhost:PORT/callback`, for
    clients that are registered with it. Default: a free port of 127.0.0.1."""
    per: Literal["gateway", "user"] = "gateway"
    """`user`: each caller signs in for itself and has its own tokens and its own connection."""

    @model_validator(mode="before")
    @classmethod
    def _accept_spellings(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"type": data}
        if not isinstance(data, dict):
            return data
        return _our_spelling(data)

    @field_validator("metadata_url", "client_metadata_url", "issuer")
    @classmethod
    def _addresses(cls, url: str | None) -> str | None:
        if url is not None and not (url.startswith(("https://", "http://")) and urlsplit(url).hostname):
            raise ValueError(f"must be an address such as https://auth.example.com, not {url[:80]!r}")
        return url

    @model_validator(mode="after")
    def _complete(self) -> "AuthConfig":
        needed = {"client_credentials": "client_secret", "private_key_jwt": "private_key"}.get(self.type)
        if needed is None:
            return self
        for name in ("client_id", needed):
            if not getattr(self, name):
                raise ValueError(f"type {self.type!r} needs `{name}`")
        if self.per == "user":
            raise ValueError(f"type {self.type!r} signs in without a person, so it cannot be `per: user`")
        return self


def auth_of_client(data: Any) -> tuple[dict[str, Any], list[str]]:
    """What another program's `auth` or `oauth` says, as ours, and the keys that mean nothing here."""
    if not isinstance(data, Mapping):
        return {}, []
    ours = _our_spelling(data)
    lost = sorted(key for key in ours if key not in AuthConfig.model_fields)
    return {key: value for key, value in ours.items() if key not in lost}, lost
