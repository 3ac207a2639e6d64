"""Rewrites code from our sandbox's spelling of tool calls to another's. Standard library only: it runs in every
contestant's Python.

Ours: `t.rows(count=3)` gives the value, `await t.rows(count=3)` too; the value of the last expression or of a top-level
`return` is the result; `ToolError` with `.message`. A dialect changes that and nothing else about a program.
"""

import ast
from dataclasses import dataclass
from typing import Any, Literal

_SINKS = frozenset(("gather", "create_task", "ensure_future", "wait_for", "wait", "as_completed", "shield"))
"""Functions that take awaitables, so that their arguments are not awaited first."""


@dataclass(frozen=True)
class Dialect:
    awaits: Literal["either", "always", "never"]
    """either: `t_x` is awaited and `t_x_now` is not. always: only `await t_x()`. never: only `t_x()`."""
    result: str | None = None
    """How the result is returned, with `{}` for it; None if the value of the last expression is the result."""
    returns: bool = False
    """Whether a program may return at the top level; otherwise it moves into a function."""
    error: str = "ToolError"
    message: str = "{}.message"
    """How to get at an error's message, with `{}` for the error."""


def adapt(code: str, dialect: Dialect | None) -> str:
    """The same program in a dialect; None is ours."""
    if dialect is None:
        return code
    tree = ast.parse(code)
    tree = _Adapter(dialect, _callers(tree) if dialect.awaits == "always" else set()).visit(tree)
    if not dialect.returns and _returns(tree.body):
        tree.body = _in_a_function(tree.body, dialect)
    if dialect.result and tree.body and isinstance(tree.body[-1], ast.Expr):
        tree.body[-1] = ast.parse(dialect.result.format(f"({ast.unparse(tree.body[-1].value)})")).body[0]
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_tool(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "t"


def _name(function: ast.AST) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _callers(tree: ast.AST) -> set[str]:
    """Plain functions that call a tool, directly or through each other: they must become async."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found: set[str] = set()
    while True:
        more = {
            function.name
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and (_is_tool(node.func) or _name(node.func) in found)
        }
        if more <= found:
            return found
        found |= more


class _Adapter(ast.NodeTransformer):
    def __init__(self, dialect: Dialect, become_async: set[str]) -> None:
        self._dialect, self._become_async = dialect, become_async
        self._taken = False
        """Whether the current expression is awaited."""

    def visit(self, node: ast.AST) -> Any:
        before = self._taken
        if not isinstance(node, (ast.Starred, ast.List, ast.Tuple, ast.Call)):
            self._taken = False
        if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
            self._taken = before
            node.elt = self.visit(node.elt)
            self._taken = False
            node.generators = [self.visit(generator) for generator in node.generators]
            result: Any = node
        else:
            result = super().visit(node)
        self._taken = before
        return result

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        if node.name not in self._become_async:
            return node
        return ast.copy_location(ast.AsyncFunctionDef(**{name: getattr(node, name) for name in node._fields}), node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        drop = self._dialect.awaits == "never" and isinstance(node.value, ast.Call) and _is_tool(node.value.func)
        self._taken = True
        node.value = self.visit(node.value)
        return node.value if drop else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        taken, self._taken = self._taken, False
        tool, awaits = _is_tool(node.func), self._dialect.awaits
        sink = _name(node.func) in _SINKS and not tool
        if tool:
            now = awaits == "either" and not taken
            node.func = ast.Name(f"t_{_name(node.func)}{'_now' * now}", ast.Load())
        else:
            node.func = self.visit(node.func)
        self._taken = sink
        node.args = [self.visit(argument) for argument in node.args]
        self._taken = False
        node.keywords = [self.visit(keyword) for keyword in node.keywords]
        if not taken and awaits == "always" and (tool or _name(node.func) in self._become_async):
            return ast.Await(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._dialect.error, node.ctx) if node.id == "ToolError" else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr == "message" and isinstance(node.ctx, ast.Load):
            return ast.parse(self._dialect.message.format(ast.unparse(node.value)), mode="eval").body
        return node


def _returns(body: list[ast.stmt]) -> bool:
    scopes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

    def search(node: ast.AST) -> bool:
        return isinstance(node, ast.Return) or any(
            search(child) for child in ast.iter_child_nodes(node) if not isinstance(child, scopes)
        )

    return any(search(statement) for statement in body if not isinstance(statement, scopes))


def _in_a_function(body: list[ast.stmt], dialect: Dialect) -> list[ast.stmt]:
    if isinstance(body[-1], ast.Expr):
        body[-1] = ast.Return(body[-1].value)
    awaits = "" if dialect.awaits == "never" else "await "
    frame = ast.parse(f"{'async ' if awaits else ''}def program():\n    pass\n{awaits}program()")
    frame.body[0].body = body  # type: ignore[attr-defined]
    return frame.body
