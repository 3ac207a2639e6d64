import logging
from collections.abc import Iterator
from contextlib import contextmanager

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
def test_what_is_not_a_secret_is_left_alone(text: str) -> None:
    assert mask(text) == text


@contextmanager
def logger() -> Iterator[logging.Logger]:
    """Logging set up as in a gateway."""
    root = logging.getLogger()
    before, level, own = root.handlers[:], root.level, logging.getLogger("mcpgate").level
    try:
        set_up("info")
        yield logging.getLogger("mcpgate.test")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("mcpgate").setLevel(own)


def test_records_go_to_stderr_only_and_masked(capsys: pytest.CaptureFixture[str]) -> None:
    with logger() as log:
        log.info("password=%s", "s3cretvalue")
        log.debug("too quiet")
        logging.getLogger("another.library").info("too quiet")
    out, err = capsys.readouterr()
    assert out == ""
    assert "password=********" in err and "quiet" not in err and err.count("\n") == 1


def test_the_password_in_an_address_is_masked() -> None:
    assert "hunter22" not in mask("cannot connect to https://ada:hunter22@example.com/mcp")


FORGED = "no\n2026-11-28 03:00:00,000 INFO mcpgate.governance: key 'root' created by admin"


def test_what_others_say_is_one_line_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with logger() as log:
        log.warning("server %s: %s", "evil", FORGED + "\x1b[2K\r\u202e")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert not set(err) & set("\x1b\r\u202e")
    assert r"no\n2026-11-28" in err and r"\x1b[2K\r\u202e" in err


def test_a_traceback_keeps_its_lines_and_none_of_them_looks_like_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(FORGED + "\x1b[2K")
    except ValueError:
        with logger() as log:
            log.exception("it failed")
    first, *rest = capsys.readouterr().err.rstrip("\n").split("\n")
    assert first.endswith("it failed") and len(rest) > 3
    assert all(line.startswith("  ") and "\x1b" not in line for line in rest)


def test_a_message_of_megabytes_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    with logger() as log:
        log.warning("it said %s", "x" * 10**7)
    assert len(capsys.readouterr().err) < 20_000
