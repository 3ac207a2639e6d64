"""The `server.oauth` section: what is refused, and what the error says."""

from typing import Any

import pytest
import yaml

from mcpgate.config.files import parse_config
from mcpgate.config.settings import Config, knows_audience, needs_key
from mcpgate.errors import ConfigError

GOOD: dict[str, Any] = {"issuers": ["https://login.example.com"], "claims": {"keys": [{"key": "staff"}]}}


def config(oauth: dict[str, Any], keys: Any = None, **server: Any) -> Config:
    sections = {"server": {"oauth": oauth, **server}, "governance": {"keys": keys or {"staff": {}}}}
    return parse_config(yaml.safe_dump(sections), "test.yaml", {})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no issuer": ({"issuers": []}, "server.oauth.issuers"),
    "plain HTTP": ({"issuers": ["http://login.example.com"]}, "must be HTTPS"),
    "no address": ({"issuers": ["login.example.com"]}, "must be an address such as"),
    "a query": ({"issuers": ["https://login.example.com?x=1"]}, "must be an address such as"),
    "twice": ({"issuers": ["https://a.example", "https://a.example/"]}, "two have the issuer"),
    "one name": ({"issuers": ["https://a.example/x", "https://a.example:x"]}, "must be an address|two have the name"),
    "a symmetric algorithm": (
        {"issuers": [{"issuer": "https://a.example", "algorithms": ["HS256"]}]}, "algorithms"),
    "no algorithm": ({"issuers": [{"issuer": "https://a.example", "algorithms": ["none"]}]}, "algorithms"),
    "no claims": ({"issuers": ["https://a.example"], "claims": None}, "`claims` is needed"),
    "no rules": ({"claims": {"keys": []}}, "server.oauth.claims.keys"),
    "one user for all": ({"claims": {"keys": [{"key": "staff"}], "user": "everybody@{issuer}"}}, "must name a claim"),
    "half a brace": ({"claims": {"keys": [{"key": "staff"}], "user": "{sub"}}, "claims in braces"),
    "a misspelt key": ({"issuers": [{"isuer": "https://a.example"}]}, "did you mean `issuer`"),
    "a scope with a space": ({"scopes": ["a b"]}, "must be a scope"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_section_that_cannot_be_meant_is_an_error_that_says_where(case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        config({**GOOD, **changes})


def test_only_keys_of_tokens_can_do_without_a_secret() -> None:
    assert config(GOOD).governance.keys["staff"].secret is None
    with pytest.raises(ConfigError, match=r"governance\.keys\.other: `secret` is missing"):
        config(GOOD, {"staff": {}, "other": {}})
    with pytest.raises(ConfigError, match="`secret` is missing"):
        parse_config("governance: {keys: {ci: {}}}", "test.yaml", {})


def test_who_accepts_tokens_needs_one_unless_keys_are_said_not_to_be_required() -> None:
    sections: dict[str, Any] = {"server": {"oauth": GOOD}}
    assert needs_key(Config.model_validate(sections), "127.0.0.1")
    assert not needs_key(Config.model_validate({**sections, "governance": {"require_key": False}}), "127.0.0.1")


def test_the_audience_comes_from_the_configuration_where_others_can_call() -> None:
    assert not knows_audience(config(GOOD).server)
    assert not knows_audience(config(GOOD, allowed_hosts=["*"]).server)
    for more in ({"public_url": "https://gw.example.com"}, {"allowed_hosts": ["gw.example.com"]}):
        assert knows_audience(config(GOOD, **more).server)
    assert knows_audience(config({**GOOD, "audience": "api://gw"}).server)
