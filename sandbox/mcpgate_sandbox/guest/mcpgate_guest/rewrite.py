"""From the model's text to a code object: top-level `await` and `return`, the value of a final bare
expression, and one meaning for `x = files.read(…)` with and without `await`. Pure."""

import ast
import types

FILENAME = "<code>"
RESULT, RETURN, VALUE, BLEND = "__mcpgate_result__", "__mcpgate_return__", "__mcpgate_value__", "__mcpgate_blend__"

_SINKS = frozenset(
    (
        "gather create_task ensure_future wait wait_for as_completed shield run run_until_complete timeout "
        "append add extend insert put put_nowait setdefault appendleft"
    ).split()
)
"""Callables whose arguments may stay awaitables."""

_USES = (
    ast.Expr, ast.Subscript, ast.Attribute, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.FormattedValue,
    ast.For, ast.comprehension, ast.If, ast.While, ast.IfExp, ast.Assert, ast.Raise, ast.Match, ast.AugAssign,
)  # fmt: skip
"""Parents that use a value at once."""

_BUILTINS_THAT_USE = frozenset(
    (
        "len str int float bool list dict tuple set frozenset sorted reversed sum min max any all print repr "
        "enumerate zip map filter isinstance range type iter next abs round dumps loads match search findall "
        "sub split join"
    ).split()
)


def compile_program(source: str, servers: frozenset[str]) -> types.CodeType:
    """Compile a program. Raises SyntaxError with the model's own line numbers."""
    tree = ast.parse(source, FILENAME)
    nodes = list(ast.walk(tree))
    if any(isinstance(n, (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)) for n in nodes):
        _TakeValues(servers, _awaited_names(nodes)).visit(tree)
    tree.body = _TopLevel(servers).rewrite(tree.body)
    ast.fix_missing_locations(tree)
    return compile(tree, FILENAME, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def _awaited_names(nodes: list[ast.AST]) -> frozenset[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Await):
            names.update(n.id for n in ast.walk(node.value) if isinstance(n, ast.Name))
        elif isinstance(node, ast.Call) and _called(node) in _SINKS:
            for argument in (*node.args, *(k.value for k in node.keywords)):
                names.update(n.id for n in ast.walk(argument) if isinstance(n, ast.Name))
        elif isinstance(node, (ast.Return, ast.Yield)) and isinstance(node.value, ast.Name):
            names.add(node.value.id)
        elif isinstance(node, (ast.AsyncFor, ast.For)) and isinstance(node.iter, ast.Name):
            names.add(node.iter.id)
    return frozenset(names)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


class _TakeValues(ast.NodeTransformer):
    """Wraps tool calls that are plainly used as values, so that they are values and not awaitables."""

    def __init__(self, servers: frozenset[str], awaited: frozenset[str]) -> None:
        self.servers, self.awaited = servers, awaited

    def _is_tool_call(self, node: ast.AST | None) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in self.servers
        )

    def _uses(self, parent: ast.AST, child: ast.AST) -> bool:
        if isinstance(parent, _USES):
            return True
        if isinstance(parent, ast.Assign):
            return all(self._keeps_value(t) for t in parent.targets)
        if isinstance(parent, (ast.AnnAssign, ast.NamedExpr)):
            return self._keeps_value(parent.target)
        if isinstance(parent, ast.Call) and child is not parent.func:
            name = _called(parent)
            return name in _BUILTINS_THAT_USE and not (name == "map" and parent.args[:1] == [child])
        return False

    def _keeps_value(self, target: ast.AST) -> bool:
        return not (isinstance(target, ast.Name) and target.id in self.awaited)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field, old in ast.iter_fields(node):
            if isinstance(old, list):
                setattr(node, field, [self._child(node, item) for item in old])
            elif isinstance(old, ast.AST):
                setattr(node, field, self._child(node, old))
        return node

    def _child(self, parent: ast.AST, child: object) -> object:
        if not isinstance(child, ast.AST):
            return child
        self.visit(child)
        if self._is_tool_call(child) and self._uses(parent, child):
            wrapped = ast.Call(ast.Name(VALUE, ast.Load()), [child], [])
            return ast.copy_location(wrapped, child)
        return child


class _TopLevel:
    """Rewrites statements outside any function: `return`, the final expression, imports over a server."""

    def __init__(self, servers: frozenset[str]) -> None:
        self.servers = servers

    def rewrite(self, body: list[ast.stmt]) -> list[ast.stmt]:
        if body and isinstance(body[-1], ast.Expr):
            last = body[-1]
            body[-1] = ast.copy_location(ast.Assign([ast.Name(RESULT, ast.Store())], last.value), last)
        return self._block(body)

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [new for statement in body for new in self._statement(statement)]

    def _statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return [node]
        if isinstance(node, ast.Return):
            value = node.value or ast.Constant(None)
            call = ast.Call(ast.Name(RETURN, ast.Load()), [value], [])
            return [ast.copy_location(ast.Raise(call), node)]
        if isinstance(node, ast.Import):
            blended = [a.asname or a.name for a in node.names if (a.asname or a.name) in self.servers]
            return [node, *(self._blend(name, node) for name in blended)]
        for field in ("body", "orelse", "finalbody"):
            if isinstance(inner := getattr(node, field, None), list):
                setattr(node, field, self._block(inner))
        if isinstance(node, (ast.Try, ast.TryStar)):
            for handler in node.handlers:
                handler.body = self._block(handler.body)
            if isinstance(node, ast.Try) and node.handlers:
                leave = ast.ExceptHandler(ast.Name(RETURN, ast.Load()), None, [ast.Raise()])
                node.handlers.insert(0, ast.copy_location(leave, node.handlers[0]))
        if isinstance(node, ast.Match):
            for case in node.cases:
                case.body = self._block(case.body)
        return [node]

    def _blend(self, name: str, at: ast.stmt) -> ast.stmt:
        # `import time` must not take the tools of a server called `time` away.
        call = ast.Call(ast.Name(BLEND, ast.Load()), [ast.Constant(name), ast.Name(name, ast.Load())], [])
        return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], call), at)
