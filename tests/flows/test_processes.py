"""How gateway processes end, whatever state they are in: alone, with workers, and when one kills the other."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.conftest import raw
from tests.flows.governed import (
    PRICES,
    TRUSTED,
    Served,
    bearer,
    call_of,
    environment,
    free_port,
    serving,
    wait_until,
    write_config,
)

ROOT = Path(__file__).parents[2]
ENV = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sandbox"), os.environ.get("PYTHONPATH", "")])}
STUCK = {"engine": "tests.flows.stuck_engine:StuckEngine"}
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")


@pytest.fixture(autouse=True)
def hangup_is_heard() -> Iterator[None]:
    """Gateways inherit how SIGHUP is handled; tests that were started with nohup ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def stuck(folder: Path, watchdog_s: float = 10, workers: int = 1, code: str = "1") -> Iterator[Served]:
    """A gateway with one process whose event loop stands still for good."""
    folder.mkdir(exist_ok=True)
    config = write_config(folder, {}, sandbox=STUCK, server={"watchdog_s": watchdog_s})
    with serving(folder, config, workers=workers, env=ENV) as served:
        block(served, code)
        yield served


def block(served: Served, code: str = "1") -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%s}' % (
        b'{"name":"execute_code","arguments":{"code":"%s"}}' % code.encode()
    )
    head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    before = len(stuck_ones(served))
    with socket.create_connection(("127.0.0.1", port_of(served))) as connection:
        connection.sendall(head + body)
        wait_until(lambda: len(stuck_ones(served)) > before)


def stuck_ones(served: Served) -> list[int]:
    return [int(id) for id in re.findall(r"process (\d+) is stuck", served.log.read_text())]


def workers_of(served: Served) -> list[psutil.Process]:
    children = psutil.Process(served.process.pid).children()
    return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def port_of(served: Served) -> int:
    return int(served.address.rpartition(":")[2])


def port_is_free(served: Served) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port_of(served)))
        except OSError:
            return False
        return True


def seconds_to_end(served: Served, tell: Callable[[], None]) -> float:
    began = time.monotonic()
    tell()
    served.process.wait(30)
    return time.monotonic() - began


def test_a_gateway_whose_loop_stands_still_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with ExitStack() as stack:
        ways = [(signal.SIGTERM, 10), (signal.SIGINT, 0)]
        gateways = [stack.enter_context(stuck(tmp_path / str(number), watchdog_s)) for number, watchdog_s in ways]
        began = time.monotonic()
        for served, (number, _) in zip(gateways, ways, strict=True):
            served.process.send_signal(number)
        for served in gateways:
            served.process.wait(20)
            assert served.said("Timeout") and served.said("stuck_engine.py") and port_is_free(served)
        assert time.monotonic() - began < 15


def test_a_second_signal_ends_a_stuck_gateway_at_once(tmp_path: Path) -> None:
    with stuck(tmp_path) as served:
        served.process.send_signal(signal.SIGINT)
        served.stop(signal.SIGTERM)
        assert served.process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)  # not 1, the watchdog's


def test_a_worker_that_hears_nothing_or_was_killed_is_replaced(tmp_path: Path) -> None:
    with stuck(tmp_path, watchdog_s=0.5, workers=2, code="'deaf'") as served:
        (worker,) = stuck_ones(served)
        wait_until(lambda: served.log.read_text().count("listening on") == 3)
        assert not psutil.pid_exists(worker) and served.said(f"worker {worker} ended with code 1; starting another")
        victim = workers_of(served)[0]
        victim.kill()
        wait_until(lambda: served.log.read_text().count("listening on") == 4)
        assert len(workers_of(served)) == 2 and victim not in workers_of(served)
        assert httpx2.get(f"{served.address}/healthz").status_code == 200
        assert seconds_to_end(served, served.process.terminate) < 15
        assert served.process.returncode == 0 and port_is_free(served)


@needs_linux
def test_workers_end_with_their_supervisor_even_if_it_is_killed_and_they_are_stuck(tmp_path: Path) -> None:
    with stuck(tmp_path, workers=2) as served:
        workers = workers_of(served)
        served.process.kill()
        wait_until(lambda: not any(worker.is_running() for worker in workers), 5)
        assert len(workers) == 2 and port_is_free(served)


def test_a_worker_that_does_not_end_is_killed_after_a_grace(tmp_path: Path) -> None:
    config = write_config(tmp_path, {}, sandbox={"warm": 0})
    log, port = tmp_path / "log", free_port()
    program = (
        f"from pathlib import Path; from mcpgate.cli.workers import supervise; "
        f"supervise(2, Path({str(config)!r}), '127.0.0.1', {port}, grace_s=1)"
    )
    with log.open("wb") as stderr:
        supervisor = subprocess.Popen([sys.executable, "-c", program], stderr=stderr, env=environment(tmp_path, **ENV))
    served = Served(supervisor, f"http://127.0.0.1:{port}", log, config, tmp_path)
    try:
        wait_until(lambda: log.read_text().count("listening on") == 2)
        workers = workers_of(served)
        workers[0].suspend()
        assert seconds_to_end(served, supervisor.terminate) < 15
        assert not any(worker.is_running() for worker in workers)
        assert served.said(f"worker {workers[0].pid} does not exit; killing it") and port_is_free(served)
    finally:
        supervisor.kill()
        supervisor.wait()


def test_when_the_terminal_closes_calls_under_way_in_workers_are_settled(tmp_path: Path) -> None:
    servers = {"raw": raw(expose="both", prices=PRICES)}
    config = write_config(tmp_path, servers, governance={"keys": TRUSTED}, sandbox={"warm": 0})
    with serving(tmp_path, config, workers=2) as served, ThreadPoolExecutor(1) as pool:
        key = served.new_key(id="ci", budget={"limit_usd": 1})
        under_way = pool.submit(served.http(**bearer(key)).post, "/mcp", json=call_of("raw__hang"))
        wait_until(lambda: served.standing("keys/ci")["reserved"] == "0.5")
        served.stop(signal.SIGHUP)
        answer = under_way.result(20)
        assert answer.status_code == 503 and answer.json()["error"]["data"]["code"] == "unavailable"
        assert served.process.returncode == 0 and port_is_free(served)
    with serving(tmp_path, config) as served:
        standing = served.standing("keys/ci")
        assert (standing["spent"], standing["reserved"]) == ("0.5", "0")


def test_a_gateway_started_with_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    try:
        config = write_config(tmp_path, {}, sandbox={"warm": 0})
        with serving(tmp_path, config, workers=2) as served:
            for process in (psutil.Process(served.process.pid), *workers_of(served)):
                process.send_signal(signal.SIGHUP)
            with httpx2.Client(base_url=served.address) as http:
                assert [http.get("/healthz").status_code for _ in range(3)] == [200] * 3
            assert served.process.poll() is None and len(workers_of(served)) == 2
            served.stop()
            assert served.process.returncode == 0
    finally:
        signal.signal(signal.SIGHUP, before)
