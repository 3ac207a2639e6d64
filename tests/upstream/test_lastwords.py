"""Of what a process wrote before it died, the lines that tell why are kept."""

import pytest

from mcpgate.upstream.lastwords import telling

NODE = """node:internal/modules/cjs/loader:1228
  throw err;
  ^

Error: Cannot find module '/x/server.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1225:15)
    at node:internal/main/run_main_module:28:49 {
  code: 'MODULE_NOT_FOUND',
  requireStack: []
}

Node.js v20.20.2"""
NPM = """npm error code E404
npm error 404 Not Found - GET https://registry.test/nope - Not found
npm error 404
npm error 404  'nope@*' is not in this registry.
npm error 404
npm error 404 Note that you can also install from a
npm error 404 tarball, folder, http url, or git folder.
npm error A complete log of this run can be found in: /home/ada/.npm/_logs/x.log"""
PYTHON = """Traceback (most recent call last):
  File "server.py", line 1, in <module>
    import flask
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
ModuleNotFoundError: No module named 'flask'
(exiting)"""
USAGE = """usage: server [-h] --root ROOT
server: error: the following arguments are required: --root"""
UVX = """  × No solution found when resolving tool dependencies:
  ╰─▶ Because nope was not found in the package registry and you require nope,
      we can conclude that your requirements are unsatisfiable."""
GO = """2026/11/28 10:00:00 starting
panic: open /etc/server.toml: permission denied

goroutine 1 [running]:
main.main()"""
PLAIN = "starting\n}\nhello there\n---\nbye now"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NODE, ["Error: Cannot find module '/x/server.js'"]),
        (NPM, ["npm error 404 Not Found - GET https://registry.test/nope - Not found"]),
        (PYTHON, ["ModuleNotFoundError: No module named 'flask'"]),
        (USAGE, ["server: error: the following arguments are required: --root"]),
        (UVX, [line.strip() for line in UVX.splitlines()[:2]]),
        (GO, ["panic: open /etc/server.toml: permission denied"]),
        (PLAIN, ["starting", "hello there", "bye now"]),
        ("", []),
    ],
)
def test_the_line_that_tells_why_is_found(text: str, expected: list[str]) -> None:
    assert telling([line.strip() for line in text.splitlines()]) == expected
