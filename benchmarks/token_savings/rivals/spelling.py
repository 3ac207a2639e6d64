"""The oracle's programs in the spelling of other Code Modes. Pure.

Ours calls a tool as `server.tool(argument=1)` and gets its value, awaited or not. FastMCP has one async function for
all tools, toolplane one per tool; both pass on structured content unchanged and JSON text as text. Only that changes in
a program: JSON text is parsed, and values wrapped in {"result": …} are unwrapped. Calls that ours gathers are made one
after the other, in the same order with the same results: neither rival overlaps them much.
"""

import ast
from collections.abc import Callable, Mapping

Call = Callable[[str, str, list[ast.keyword]], ast.expr]
"""(server, tool, arguments) → the call, not awaited."""

Tools = Mapping[tuple[str, str], tuple[str, str, Mapping[str, str]]]
"""(server, tool) as identifiers → the names of both, and the tool's parameters in order, identifier → name."""


def respell(code: str, tools: Tools, kinds: Mapping[tuple[str, str], str], call: Call) -> str:
    """The program in another spelling. `kinds`: (server, tool) → the kind of its answers."""
    tree = ast.parse(code)
    speller = _Speller(tools, kinds, call, _async_functions(tree, tools))
    tree = speller.visit(tree)
    if speller.parses_json and not _imports_json(tree):
        tree.body.insert(0, ast.Import([ast.alias("json")]))
    return ast.unparse(ast.fix_missing_locations(tree))


def _imports_json(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Import) and node.names[0].name == "json" for node in tree.body)


def _tool_of(node: ast.AST) -> tuple[str, str] | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id, node.attr
    return None


def _async_functions(tree: ast.AST, tools: Tools) -> set[str]:
    """Plain functions that call a tool, directly or through each other: they must become async."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found: set[str] = set()
    while True:
        more = {
            function.name
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
            and (_tool_of(node.func) in tools or (isinstance(node.func, ast.Name) and node.func.id in found))
        }
        if more <= found:
            return found
        found |= more


class _Speller(ast.NodeTransformer):
    def __init__(self, tools: Tools, kinds: Mapping[tuple[str, str], str], call: Call, become_async: set[str]) -> None:
        self._tools, self._kinds, self._call, self._become_async = tools, kinds, call, become_async
        self.parses_json = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        if node.name not in self._become_async:
            return node
        return ast.AsyncFunctionDef(**{name: getattr(node, name) for name in node._fields})

    def visit_Await(self, node: ast.Await) -> ast.AST:
        ours = isinstance(node.value, ast.Call) and (
            _tool_of(node.value.func) in self._tools or _name_of(node.value) in {"gather", *self._become_async}
        )
        value = self.visit(node.value)
        return value if ours else ast.Await(value)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name("Exception", node.ctx) if node.id == "ToolError" else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        found = _tool_of(node.func)
        if found in self._tools:
            return self._tool_call(node, *self._tools[found])
        self.generic_visit(node)
        if _name_of(node) == "gather":
            first = node.args[0] if node.args else None
            return first.value if isinstance(first, ast.Starred) else ast.Tuple(node.args, ast.Load())
        return ast.Await(node) if _name_of(node) in self._become_async else node

    def _tool_call(self, node: ast.Call, server: str, tool: str, parameters: Mapping[str, str]) -> ast.expr:
        positional = zip(parameters.values(), node.args, strict=False)
        arguments = [ast.keyword(name, self.visit(value)) for name, value in positional]
        arguments += [
            ast.keyword(keyword.arg and parameters.get(keyword.arg, keyword.arg), self.visit(keyword.value))
            for keyword in node.keywords
        ]
        awaited: ast.expr = ast.Await(self._call(server, tool, arguments))
        match self._kinds.get((server, tool)):
            case "json":
                self.parses_json = True
                return ast.Call(ast.Attribute(ast.Name("json", ast.Load()), "loads", ast.Load()), [awaited], [])
            case "wrapped":
                return ast.Subscript(awaited, ast.Constant("result"), ast.Load())
        return awaited


def _name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
