"""Commands as a person or a script runs them: a process, its output, its exit code."""

import asyncio
import contextlib
import fcntl
import http.server
import json
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from mcpgate.cli import console
from tests.conftest import raw, serve_command

Mcpgate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mcpgate(tmp_path: Path) -> Mcpgate:
    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mcpgate", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def config(config_file: Callable[..., Path]) -> str:
    return str(config_file({"raw": raw()}))


def test_check_shows_every_server_and_part_and_exits_0(mcpgate: Mcpgate, config: str) -> None:
    done = mcpgate("check", "-c", config)
    assert done.returncode == 0, done.stderr
    assert "ok  raw" in done.stdout and "2025-11-25" in done.stdout and "ok  sandbox (wasm)" in done.stdout
    assert "\x1b[" not in done.stdout  # no colours where there is no terminal


def test_check_exits_1_and_says_why_when_a_server_fails(mcpgate: Mcpgate, config_file: Callable[..., Path]) -> None:
    servers = {"good": raw(), "bad": raw("--exit", "3"), "broken-schemas": raw("--bad-schemas")}
    done = mcpgate("check", "--format", "json", "-c", str(config_file(servers)))
    report = json.loads(done.stdout)
    states = {row["server"]: row for row in report["servers"]}
    assert done.returncode == 1 and not report["ok"]
    assert states["good"]["ok"] and not states["bad"]["ok"] and "code 3" in states["bad"]["error"]
    assert any("bad_type" in fault for fault in states["broken-schemas"]["schema_faults"])


def test_check_fits_a_narrow_terminal_and_names_invalid_schemas(
    mcpgate: Mcpgate, config_file: Callable[..., Path]
) -> None:
    output = {"type": "object", "properties": {"x": {"minItems": -1}}}
    tool = {"name": "odd", "inputSchema": {"type": "object"}, "outputSchema": output}
    long = "a-server-with-a-name-that-goes-on-and-on-for-more-than-a-line"
    servers = {"good": raw("--also", json.dumps([tool])), long: {"url": "http://no-such-host.invalid/mcp"}}
    path = str(config_file(servers))
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 72, 0, 0))
    command = [sys.executable, "-m", "mcpgate", "check", "-c", path]
    # A pytest worker has the COLUMNS that readline set in its parent.
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    done = subprocess.run(command, stdin=writer, stdout=writer, stderr=subprocess.DEVNULL, env=environ, timeout=120)
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(reader, 65536):
            shown += part
    os.close(reader)
    lines = shown.decode().replace("\r", "").splitlines()
    assert done.returncode == 1 and [line for line in lines if console.width(line) > 72] == []
    text = " ".join(" ".join(lines).split())
    assert "cannot connect to http://no-such-host.invalid/mcp:" in text
    fault = "odd: outputSchema.properties.x.minItems: -1 is less than the minimum of 0"
    assert fault in text
    report = json.loads(mcpgate("check", "--format", "json", "-c", path).stdout)
    (row,) = [row for row in report["servers"] if row["server"] == "good"]
    assert row["invalid_schemas"] == [fault]


def test_check_says_what_to_do_about_a_server_that_wants_credentials(
    mcpgate: Mcpgate, config_file: Callable[..., Path]
) -> None:
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = mcpgate("check", "-c", str(config_file({"hub": {"url": f"http://127.0.0.1:{server.server_port}/mcp"}})))
        server.shutdown()
    assert done.returncode == 1 and "HTTP 401" in done.stdout and "mcpgate auth login hub" in done.stdout


def test_check_tries_a_failing_server_once_while_it_waits_for_a_slow_one(
    mcpgate: Mcpgate, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    bad = {"command": "sh", "args": ["-c", f"echo started >> '{starts}'; exit 3"]}
    servers = {"bad": bad, "slow": raw("--never-ready", connect_timeout_s=4)}
    done = mcpgate("check", "-c", str(config_file(servers)))
    assert done.returncode == 1 and "not ready within connect_timeout_s=4" in done.stdout
    assert len(starts.read_text().split()) == 1


def test_check_shows_nothing_that_a_terminal_would_obey_and_no_numbers_of_servers_that_are_off(
    mcpgate: Mcpgate, config_file: Callable[..., Path]
) -> None:
    strange = json.dumps([{"name": "a\x1b[2Jb\x9b\u202e", "inputSchema": {"type": 7}}])
    servers = {
        "strange": raw("--also", strange),
        "resting": raw(disabled=True),
        "unset": raw(env={"A": "${NOT_SET_1}"}),
    }
    path = str(config_file(servers))
    text = mcpgate("check", "-c", path).stdout
    assert "NOT_SET_1 is not set" in text and r"a\x1b[2Jb" in text
    assert not set(text) & {"\x1b", "\x9b", "\u202e"}
    assert re.search(r"^off +resting$", text, re.MULTILINE)
    written = mcpgate("check", "--format", "json", "-c", path).stdout
    report = json.loads(written)
    rows = {row["server"]: row for row in report["servers"]}
    assert not set(written) & {"\x1b", "\x9b", "\u202e"}
    assert (rows["resting"]["tokens"], rows["unset"]["tokens"]) == (0, 0)
    assert report["definition_tokens"] == rows["strange"]["tokens"] > report["meta_tool_tokens"] > 0


def test_check_says_that_a_command_is_not_executable_or_a_folder(
    mcpgate: Mcpgate, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "server.py").write_text("#!/usr/bin/env python3\n")
    commands = {"x": {"command": str(tmp_path / "server.py")}, "y": {"command": str(tmp_path)}}
    done = mcpgate("check", "-c", str(config_file(commands)))
    assert done.returncode == 1 and "exists but is not executable" in done.stdout and "is a folder" in done.stdout


def test_pages_of_a_server_reach_the_terminal_without_its_escapes(
    mcpgate: Mcpgate, config_file: Callable[..., Path]
) -> None:
    tool = {"name": "odd", "description": "clears\x1b[2J\x9b the screen", "inputSchema": {"type": "object"}}
    path = str(config_file({"raw": raw("--also", json.dumps([tool]))}))
    for arguments in (["tools", "clears"], ["describe", "raw.odd"], ["describe", "raw.odd", "--format", "json"],
                      ["docs", "raw.odd"]):  # fmt: skip
        shown = mcpgate(*arguments, "-c", path).stdout
        assert "clears" in shown and not set(shown) & {"\x1b", "\x9b"}


def test_the_moving_line_is_cut_to_the_terminal_and_tables_count_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("mcpgate.cli.console._columns", lambda: 20)
    console.Status()("connecting: " + ", ".join(f"server-{i}" for i in range(9)))
    line = capsys.readouterr().err.removeprefix("\r\x1b[K")
    assert console.width(line) == 19 and line.endswith("…")
    rows = [[console.styled("ok", "green"), "東京", 1], ["FAILED", "x", 1_000]]
    widths = {console.width(row) for row in console.table(["", "name", "n"], rows, frozenset({2})).splitlines()}
    assert len(widths) == 1


def test_tools_describe_and_docs_show_what_a_model_would_see(mcpgate: Mcpgate, config: str) -> None:
    assert "raw.add(a: int, b: int)" in mcpgate("tools", "add", "numbers", "-c", config).stdout
    assert "21 tools" in mcpgate("tools", "-c", config).stdout
    found = json.loads(mcpgate("tools", "add", "--format", "json", "-c", config).stdout)
    assert found[0]["name"] == "raw.add"
    assert "def add(" in mcpgate("describe", "raw.add", "-c", config).stdout
    wrong = mcpgate("describe", "raw.nope", "-c", config)
    assert wrong.returncode == 1 and "there is no tool" in wrong.stderr and wrong.stdout == ""
    assert "CPython" in mcpgate("docs", "sandbox", "-c", config).stdout


def test_run_executes_a_file_or_stdin_and_its_exit_code_says_how_it_went(
    mcpgate: Mcpgate, config: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text("print('to stdout')\nraw.add(a=40, b=2)")
    done = mcpgate("run", str(program), "-c", config)
    assert (done.returncode, done.stdout) == (0, 'to stdout\n{"sum":42}\n')
    failed = mcpgate("run", "-", "-c", config, stdin="1/0")
    assert failed.returncode == 1 and "ZeroDivisionError" in failed.stderr and failed.stdout == ""
    outcome = json.loads(mcpgate("run", "-", "--format", "json", "-c", config, stdin="raw.add(a=1, b=1)").stdout)
    assert outcome["ok"] and outcome["result"] == {"sum": 2} and outcome["tool_calls"] == 1
    image = mcpgate("run", "-", "--save", str(tmp_path), "-c", config, stdin="raw.picture()")
    assert image.returncode == 0 and (tmp_path / "mcpgate-1.png").read_bytes().startswith(b"\x89PNG")
    assert mcpgate("run", str(tmp_path / "absent.py"), "-c", config).returncode == 2


def test_run_makes_the_folder_for_files_and_shows_the_answer_even_if_it_cannot(
    mcpgate: Mcpgate, config: str, tmp_path: Path
) -> None:
    code = "print('the answer')\nraw.picture()"
    folder = tmp_path / "new" / "folder"
    done = mcpgate("run", "-", "--save", str(folder), "-c", config, stdin=code)
    assert done.returncode == 0 and (folder / "mcpgate-1.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").write_text("no folder can be made in here")
    for options in ([], ["--format", "json"]):
        failed = mcpgate("run", "-", "--save", str(tmp_path / "file" / "x"), *options, "-c", config, stdin=code)
        assert failed.returncode == 2 and "the answer" in failed.stdout
        assert str(tmp_path / "file" / "x") in failed.stderr and "--save" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_wrong_usage_and_configuration_exit_2_with_the_remedy(mcpgate: Mcpgate, tmp_path: Path) -> None:
    assert mcpgate("serv").returncode == 2
    absent = mcpgate("check", "-c", str(tmp_path / "absent.yaml"))
    assert absent.returncode == 2 and "mcpgate import" in absent.stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text("mcpServer: {x: {command: ls}}")
    done = mcpgate("check", "-c", str(bad))
    assert done.returncode == 2 and "did you mean `mcpServers`?" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [[], ["--isolation", "process"], ["--engine", "restricted"]])
def test_sandbox_test_tries_what_the_sandbox_promises(options: list[str], mcpgate: Mcpgate) -> None:
    done = mcpgate("sandbox", "test", *options)
    assert done.returncode == 0 and done.stdout.count("ok  ") == 8
    assert ("system calls filtered by the kernel" in done.stdout) == (options != [])


def test_a_command_whose_reader_left_does_not_complain(config: str) -> None:
    command = [sys.executable, "-m", "mcpgate", "docs", "sandbox", "-c", config]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0 and errors == ""


def test_version_and_help_are_quick_and_complete(mcpgate: Mcpgate) -> None:
    shown = mcpgate("--help").stdout
    for command in ("demo", "serve", "check", "tools", "describe", "run", "import", "install"):
        assert f"\n    {command} " in shown
    assert mcpgate("--version").stdout.startswith("mcpgate ")


@pytest.mark.anyio
async def test_an_edit_of_the_configuration_takes_effect_without_a_restart_and_a_bad_one_does_not(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = config_file({"raw": raw()})
    process = await asyncio.create_subprocess_exec(
        *serve_command(path, "--stdio"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    number = 0

    async def run(code: str) -> str:
        nonlocal number
        number += 1
        params = {"name": "execute_code", "arguments": {"code": code}}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(message).encode() + b"\n")
        while True:
            answer: Any = json.loads(await process.stdout.readline())
            if answer.get("id") == number:
                return str(answer["result"]["content"][0]["text"])

    async with asyncio.timeout(60):
        assert await run("raw.echo(text='before')") == "before"
        path.write_text("mcpServers: {raw: {comand: typo}}")
        async for line in process.stderr:
            if b"rejected" in line:
                assert b"did you mean `command`" in line
                break
        assert await run("raw.echo(text='old state goes on')") == "old state goes on"
        path.write_text(yaml.safe_dump({"mcpServers": {"raw": raw(), "more": raw()}}))
        async for line in process.stderr:
            if b"configuration reloaded" in line:
                break
        assert await run("more.echo(text='after')") == "after"
        process.stdin.close()
        await process.wait()


def test_several_workers_share_one_port_and_none_outlives_the_supervisor(config: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mcpgate", "serve", "-c", config, "--port", str(port), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(psutil.Process(process.pid).children()) == 2)
        workers = psutil.Process(process.pid).children()

        def ask(method: str) -> Any:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/mcp", json.dumps(message).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                # No session: a client's next request may reach the other worker.
                assert response.headers["mcp-session-id"] is None
                return json.load(response)

        def answers() -> bool:
            try:
                return bool(ask("ping"))
            except OSError:
                return False

        wait_for(answers)
        for _ in range(20):
            assert ask("initialize")["result"]["protocolVersion"] and len(ask("tools/list")["result"]["tools"]) == 4
        process.kill()
        process.wait(10)
        wait_for(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_check_names_both_of_two_direct_tools_with_one_name(mcpgate: Mcpgate, config_file: Callable[..., Path]) -> None:
    servers = {"a": raw(expose="direct", prefix=""), "b": raw(expose="direct", prefix="")}
    done = mcpgate("check", "-c", str(config_file(servers)), "--format", "json")
    report = json.loads(done.stdout)
    (names,) = [part for part in report["parts"] if part["part"] == "names of direct tools"]
    assert done.returncode == 1 and not report["ok"]
    assert "'add' is both 'add' of server 'a' and 'add' of server 'b'; set `prefix`" in names["error"]
