"""The gateway that tests of keys, grants and budgets share, one per file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import raw
from tests.flows.governed import GRANTED, HELD, PRICES, TRUSTED, Served, own_database, serving, sqlite_url, write_config


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The section `storage` of a configuration: a store of each kind that several workers can share."""
    if request.param == "sqlite":
        yield {"url": sqlite_url(tmp_path)}
    else:
        with own_database() as url:
            yield {"url": url}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One gateway that requires keys; tests create the keys and budgets they need."""
    folder = tmp_path_factory.mktemp("house")
    keys = {
        **TRUSTED,
        "all": {"secret": HELD["all"], "grants": {"tools": "*"}},
        "some": {"secret": HELD["some"], "grants": {"tools": list(GRANTED)}},
        "none": {"secret": HELD["none"]},
    }
    servers = {
        "alpha": raw(expose="both", prices=PRICES),
        "beta": raw("--tools", "3", expose="both"),
        "beta.private": raw("--tools", "3", expose="both"),
        "gamma": raw(expose="direct"),
    }
    customers = {"acme": {"budget": {"limit_usd": 0.5}}, "rich": {}}
    teams = {"search": {"customer": "acme", "budget": {"limit_usd": 0.4}}, "free": {"customer": "rich"}}
    users = {"ada": {"team": "search", "budget": {"limit_usd": 0.3}}, "bob": {"team": "free"}}
    rules = [
        {"id": "projects", "when": {"metadata.env": "dev"}, "per": "metadata.project_id", "limit_usd": 0.02},
        {"id": "soft", "when": {"metadata.kind": "soft"}, "limit_usd": 1, "soft_limit_usd": 0.015},
    ]
    governance = {
        "require_key": True,
        "keys": keys,
        "customers": customers,
        "teams": teams,
        "users": users,
        "budgets": rules,
        "hold_wait_s": 0.3,
    }
    config = write_config(folder, servers, governance=governance, code_mode={"index_tokens": 2000})
    with serving(folder, config) as served:
        yield served
