import logging

import pytest

from mcpgate.telemetry.logs import mask, set_up


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer s3cretvalue",
        'headers: {"Authorization": "Bearer s3cretvalue"}',
        "Authorization: Basic s3cretvalue",
        "authorization=s3cretvalue",
        "Bearer s3cretvalue",
        "api_key=s3cretvalue&x=1",
        "x-api-key: s3cretvalue",
        "{'password': 's3cretvalue'}",
        "GITHUB_TOKEN=s3cretvalue",
        "client_secret: s3cretvalue",
        "key mg-s3cretvalue refused",
        "sk-ant-s3cretvalue0123456789",
        "ghp_s3cretvalue0123456789",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    assert "s3cret" not in mask(text) and "********" in mask(text)


@pytest.mark.parametrize("text", ["12 tokens in 3 requests", "files: connected", "the secret is out", "token: x"])
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert mask(text) == text


def test_records_go_to_stderr_only_and_masked(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level, own = root.handlers[:], root.level, logging.getLogger("mcpgate").level
    try:
        set_up("info")
        logging.getLogger("mcpgate.test").info("password=%s", "s3cretvalue")
        logging.getLogger("mcpgate.test").debug("too quiet")
        logging.getLogger("another.library").info("too quiet")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("mcpgate").setLevel(own)
    out, err = capsys.readouterr()
    assert out == ""
    assert "password=********" in err and "quiet" not in err and err.count("\n") == 1


def test_the_password_in_an_address_is_masked() -> None:
    assert "hunter22" not in mask("cannot connect to https://ada:hunter22@example.com/mcp")
