"""Databases for servers that list nothing without one."""

import shutil
import socket

import pytest

from benchmarks.services import ServiceMissing, running


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here")
def test_a_service_answers_while_it_is_needed_and_no_longer() -> None:
    with running("redis") as port:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(16) == b"+PONG\r\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_program_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServiceMissing, match="needs mariadb-install-db on the PATH"), running("mysql"):
        pass
