"""Access tokens: what a verified one says about its caller, by the `server.oauth` section of the configuration. Pure.
issuers/ verifies them, identity.py makes callers of them.

Nothing that a token says gives more than the configuration: it chooses one of the keys that rules name, it can narrow
what that key grants, and teams and customers must be declared. What cannot be told means no access.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from mcpgate.config.oauth import PLACEHOLDER, ClaimsConfig, IssuerConfig, OAuthConfig
from mcpgate.errors import InvalidKey, NotAllowed
from mcpgate.governance.callers import Grants, Token, VirtualKey, matches_any
from mcpgate.governance.policy import Policy
from mcpgate.telemetry.text import one_line

_MOST_VALUES = 1000
"""Of one claim."""
_MOST_GLOBS, _LONGEST_GLOB = 256, 512
"""In a claim that narrows grants."""
_LONGEST_ID = 128
"""Characters of a user, team or customer."""
_WORDS = ("scope", "scp")
"""Claims whose text is a list of words."""


class Tokens(Protocol):
    """Verifies access tokens of the configured issuers."""

    async def verify(self, text: str) -> Token:
        """Signature, issuer and times; not its audience and scopes, which `holder_of` checks. Raises InvalidKey,
        Unavailable if the issuer's keys cannot be fetched."""
        ...

    async def probe(self) -> Mapping[str, str]:
        """Fetch the metadata and keys of every issuer: issuer → what is wrong, or an empty text."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a token, and with which key it acts."""

    key: str
    user: str
    team: str | None
    customer: str | None
    within: Grants | None
    """What the token narrows the key's grants to; None: it does not."""


def looks_like_token(secret: str) -> bool:
    """Whether a secret has the form of a JWT, signed or encrypted."""
    return secret.count(".") in (2, 4)


def holder_of(token: Token, oauth: OAuthConfig) -> Holder:
    """Raises InvalidKey for a token of another issuer or for another audience, NotAllowed."""
    issuer = oauth.find_issuer(token.issuer)
    if issuer is None:
        raise unknown_issuer(token.issuer)
    _check_audience(token, issuer.audience or oauth.audience)
    missing = [scope for scope in oauth.scopes if scope not in _scopes_of(token.claims)]
    if missing:
        raise NotAllowed(
            f"this token lacks the scope {missing[0]!r}; sign in again and ask for {' '.join(oauth.scopes)}",
            needed_scopes=list(oauth.scopes),
        )
    claims = oauth.claims_of(issuer)
    rule = next((rule for rule in claims.keys if _matches(rule.when, token.claims)), None)
    if rule is None:
        looked_at = ", ".join(dict.fromkeys(name for rule in claims.keys for name in rule.when))
        raise NotAllowed(f"no rule in server.oauth.claims.keys matches this token; they look at {looked_at}")
    if "email" in PLACEHOLDER.findall(claims.user) and values_of(token.claims, "email_verified") == ("false",):
        raise NotAllowed("the issuer says that this token's email is not verified")
    return Holder(
        key=rule.key,
        user=_filled("user", claims.user, issuer, token.claims),
        team=None if claims.team is None else _filled("team", claims.team, issuer, token.claims),
        customer=None if claims.customer is None else _filled("customer", claims.customer, issuer, token.claims),
        within=_narrowed(claims, token.claims),
    )


def held(key: VirtualKey, holder: Holder, policy: Policy) -> VirtualKey:
    """A key as the holder of a token has it. What the key itself says about its user, team and customer stays: a token
    that says something else is refused. Raises NotAllowed."""
    for name in ("user", "team", "customer"):
        own, said = getattr(key, name), getattr(holder, name)
        if own is not None and said not in (None, own):
            raise _not_allowed(key, f"is for the {name} {own!r}, and this token for {said!r}")
    if key.users is not None and not matches_any(holder.user, key.users):
        raise _not_allowed(key, f"is not for user {holder.user!r}: its `users` do not match")
    team, customer = holder.team or key.team, holder.customer or key.customer
    if holder.team is not None and holder.team not in policy.teams:
        raise _not_allowed(key, f"cannot be used in team {holder.team!r}, which is not declared")
    if holder.customer is not None and holder.customer not in policy.customers:
        raise _not_allowed(key, f"cannot be used for customer {holder.customer!r}, which is not declared")
    user = policy.users.get(holder.user)
    in_team = policy.teams.get(team or (user.team if user else None) or "")
    if in_team is not None and None not in (in_team.customer, customer) and in_team.customer != customer:
        raise _not_allowed(key, f"cannot be used for customer {customer!r}: the team is {in_team.customer!r}'s")
    grants = key.grants if holder.within is None else replace(key.grants, within=holder.within)
    # Its requests speak for the token's user only, whomever the key may speak for.
    return replace(key, user=holder.user, team=team, customer=customer, users=None, grants=grants)


def unknown_issuer(iss: object) -> InvalidKey:
    return InvalidKey(f"this token is of the issuer {one_line(str(iss))!r}, which is not one of server.oauth.issuers")


def values_of(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A claim as texts: of a list, each; nothing for objects. `a.b` is `b` inside `a` where no claim has that name."""
    found: Any = claims.get(name)
    if found is None and "." in name:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str) and name in _WORDS:
        found = found.split()
    listed = found[:_MOST_VALUES] if isinstance(found, list) else [found]
    return tuple(text for value in listed if (text := _text(value)) is not None)


def canonical(url: str) -> str:
    """An address in the form in which addresses are compared."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return url
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != {"http": 80, "https": 443}.get(parts.scheme.lower()):
        host = f"{host}:{port}"
    return parts._replace(scheme=parts.scheme.lower(), netloc=host, path=parts.path.rstrip("/")).geturl()


def _check_audience(token: Token, configured: Sequence[str]) -> None:
    named = token.claims.get("aud")
    audiences = [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str)]
    if any(one in configured for one in audiences):
        return
    if not configured and any(canonical(one) in token.sent_to for one in audiences if "@" not in one):
        return
    shown = ", ".join(repr(one_line(one)) for one in audiences[:3]) or "no audience"
    if configured:
        wanted = f"it must be for {' or '.join(map(repr, configured))}"
    elif token.sent_to:
        wanted = f"it must be for {token.sent_to[0]!r}"
    else:
        wanted = "the gateway does not know by which address it is called: set server.public_url"
    raise InvalidKey(f"this token is for {shown}; {wanted}")


def _scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(scope for name in _WORDS for scope in values_of(claims, name))


def _matches(when: Mapping[str, Sequence[str]], claims: Mapping[str, Any]) -> bool:
    return all(
        any(fnmatch.fnmatchcase(value, glob) for value in values_of(claims, name) for glob in globs)
        for name, globs in when.items()
    )


def _filled(what: str, template: str, issuer: IssuerConfig, claims: Mapping[str, Any]) -> str:
    """A template with its claims. No claim can make the id of another claim's value."""
    found = template
    for name in dict.fromkeys(PLACEHOLDER.findall(template)):
        values = (issuer.shown_name,) if name == "issuer" else values_of(claims, name)
        if len(values) != 1 or not values[0].strip():
            raise NotAllowed(f"this token has no single value in the claim {name!r}, which says whose {what} it is")
        found = found.replace(f"{{{name}}}", values[0] if name == "issuer" else _escaped(values[0]))
    if found != found.strip() or len(found) > _LONGEST_ID:
        raise NotAllowed(
            f"this token's {what} begins or ends with a space, or has over {_LONGEST_ID} characters; choose another "
            f"claim in server.oauth.claims.{what}"
        )
    return found


def _escaped(value: str) -> str:
    """A value without the characters that ids must not have, and without braces, which would be read again."""
    return "".join(
        c if c.isprintable() and c not in "%|/{}" else quote(c, safe="", errors="surrogatepass") for c in value
    )


def _narrowed(claims: ClaimsConfig, given: Mapping[str, Any]) -> Grants | None:
    if claims.tools is None and claims.models is None and claims.meta_tools is None:
        return None
    tools, models, meta_tools = (
        None if name is None else _globs(name, given) for name in (claims.tools, claims.models, claims.meta_tools)
    )
    everything = ("*",)
    return Grants(
        tools=everything if tools is None else tools,
        models=everything if models is None else models,
        meta_tools=meta_tools,
        admin=True,
    )


def _globs(name: str, claims: Mapping[str, Any]) -> tuple[str, ...]:
    globs = tuple(glob for value in values_of(claims, name) for glob in value.split())
    if len(globs) > _MOST_GLOBS or any(len(glob) > _LONGEST_GLOB for glob in globs):
        raise NotAllowed(
            f"this token's claim {name!r} has over {_MOST_GLOBS} globs, or one of over {_LONGEST_GLOB} characters"
        )
    return globs


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else None


def _not_allowed(key: VirtualKey, why: str) -> NotAllowed:
    return NotAllowed(f"key {key.id!r} {why}", key=key.id)
