"""Names of directly exposed tools are accepted by every client, and stay the same whatever other tools there are."""

import re

from mcpgate.catalog.tools import Tool
from mcpgate.proxy.direct import direct_names


def named(*tools: tuple[str, str]) -> dict[str, tuple[str, str]]:
    found = direct_names([Tool(server, server, name, name, {}) for server, name in tools], lambda _: None)
    return {name: (tool.server, tool.name) for name, tool in found.items()}


LONG = ("enterprise-database-management", "synchronize_customer_records_across_all_regions")
ALIKE = (LONG[0], LONG[1] + "_and_more")


def test_short_names_are_the_server_and_the_tool() -> None:
    assert named(("files", "read"), ("a-b", "c.d")) == {"files__read": ("files", "read"), "a-b__c_d": ("a-b", "c.d")}


def test_long_names_and_names_without_a_letter_fit_and_stay_apart() -> None:
    tools = (LONG, ALIKE, ("names", "天気"), ("names", "予報"))
    found = named(*tools)
    assert set(found.values()) == set(tools)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name) for name in found)
    for tool in tools:
        (alone,) = named(tool)
        assert found[alone] == tool


def test_a_configured_prefix_changes_nothing_else() -> None:
    tools = [Tool(LONG[0], LONG[0], LONG[1], LONG[1], {})]
    assert list(direct_names(tools, lambda _: "db_")) == [f"db_{LONG[1]}"]
