"""Keys that nobody has to send: the gateway and `keys create` say so."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import raw
from tests.flows.governed import environment, mcpgate, serving, write_config

ACCEPTED = "without a key are also accepted"
SETTING = "governance.require_key: true"
FILE_KEY = {"keys": {"ci": {"secret": "mg-of-the-file"}}}


def gateway_says(tmp_path: Path, governance: dict[str, Any], with_key: bool) -> tuple[str, str, int]:
    """What `keys create` and `serve` say, and the status of a request without a key."""
    config = write_config(tmp_path, {"raw": raw(expose="direct")}, governance=governance)
    created = ""
    if with_key:
        done = mcpgate("keys", "create", "stored", "-c", str(config), env=environment(tmp_path))
        assert done.returncode == 0
        created = done.stderr
    with serving(tmp_path, config) as served:
        return created, served.log.read_text(), served.call("raw__echo", {"text": "x"}, key=None).response.status_code


@pytest.mark.parametrize("governance", [{}, {"require_key": False}], ids=["unset", "false"])
def test_keys_of_the_store_that_are_not_required_are_warned_of(tmp_path: Path, governance: dict[str, Any]) -> None:
    created, log, status = gateway_says(tmp_path, governance, with_key=True)
    assert status == 200
    for text in (created, log):
        assert ACCEPTED in text and SETTING in text


@pytest.mark.parametrize(
    ("governance", "with_key", "status"),
    [({"require_key": True}, True, 401), (FILE_KEY, True, 401), ({}, False, 200)],
    ids=["required", "keys in the file", "no keys"],
)
def test_there_is_no_warning_where_a_key_is_required_or_there_is_none(
    tmp_path: Path, governance: dict[str, Any], with_key: bool, status: int
) -> None:
    created, log, found = gateway_says(tmp_path, governance, with_key)
    assert found == status
    assert ACCEPTED not in created and ACCEPTED not in log


def test_revoked_keys_are_not_warned_of(tmp_path: Path) -> None:
    config = write_config(tmp_path, {})
    for command in (["create", "ci"], ["revoke", "ci"]):
        assert mcpgate("keys", *command, "-c", str(config), env=environment(tmp_path)).returncode == 0
    with serving(tmp_path, config) as served:
        assert ACCEPTED not in served.log.read_text()
