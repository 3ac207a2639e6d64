"""The child's side of the restricted engine: the guest package it shares with the Wasm guest, under the policy."""

import sys
import types
from typing import Any

_border = types.ModuleType("wit_world")
sys.modules["wit_world"] = _border  # what the guest package calls its host by

from mcpgate_guest import program, rewrite  # noqa: E402

from mcpgate_sandbox.connection import Connection  # noqa: E402
from mcpgate_sandbox.restriction import guards, modules  # noqa: E402
from mcpgate_sandbox.restriction.transformer import restrict  # noqa: E402


class _RestrictedDialect(program.Dialect):  # type: ignore[misc]
    def __init__(self) -> None:
        modules.load_all()
        self.builtins = guards.restricted_builtins(modules.import_, program.variables)
        self.globals = {"asyncio": modules.get("asyncio"), "json": modules.get("json")}

    def compile(self, code: str, servers: frozenset[str]) -> types.CodeType:
        compiled: types.CodeType = rewrite.compile_program(code, servers, restrict)
        return compiled

    def import_all(self, module: str, namespace: dict[str, Any]) -> None:
        found = vars(modules.import_(module, fromlist=("*",)))
        namespace.update({name: value for name, value in found.items() if not name.startswith("_")})

    def modules(self) -> tuple[list[str], list[str]]:
        return modules.available()


program.dialect = _RestrictedDialect()


def serve(connection: Connection) -> None:
    """Run what comes over the connection, until it ends."""
    for name in ("submit", "poll", "call", "emit"):
        setattr(_border, name, getattr(connection, name))
    program.run("", '{"warm":true}')
    connection.lock_down()
    for code, options in connection.executions():
        connection.result(program.run(code, options))
