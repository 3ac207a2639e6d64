"""From the model's text to a code object: top-level `await` and `return`, the value of a final bare
expression, and one meaning for `x = files.read(…)` with and without `await`. Pure."""

import ast
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

FILENAME = "<code>"
VALUE, VALUES, WAIT, WAIT_ALL, BLEND, IMPORT_ALL, RUN, FINISH = (
    f"__mcpgate_{name}__" for name in ("value", "values", "wait", "wait_all", "blend", "import_all", "run", "finish")
)
"""What rewritten code calls: see calls.py, and program.py for the last four."""

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

_EAGER = frozenset("join sum sorted list tuple set frozenset max min fsum mean median Counter".split())
"""Callables that take all of an iterable at once: the calls of a generator expression may leave together."""

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.GeneratorExp)
_LEAVES = frozenset((ast.Name, ast.Constant, ast.Load, ast.Store, ast.arg, ast.alias, ast.Pass))
_CONTAINERS = (ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp)


Restrict = Callable[[ast.stmt], ast.stmt]


def compile_program(source: str, servers: frozenset[str], restrict: Restrict | None = None) -> types.CodeType:
    """Compile a program to a function without parameters, whose variables are globals and whose value is the
    program's. A coroutine function if the program awaits. `restrict` has the last word on each statement. Raises
    SyntaxError with the model's own line numbers."""
    tree = ast.parse(source, FILENAME)
    if "import" in source:
        tree = _ServerImports(servers).visit(tree)
    nodes = list(ast.walk(tree))
    bound: set[str] = set()
    waits = _survey(tree, bound)
    if (waits or any(isinstance(n, ast.AsyncFunctionDef) for n in nodes)) and any(
        isinstance(n, ast.Name) and n.id in servers for n in nodes
    ):
        _TakeValues(servers, nodes, waits).generic_visit(tree)
    coroutines = {n.name for n in nodes if isinstance(n, ast.AsyncFunctionDef)}
    coroutines -= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
    body = _TopLevel(servers, frozenset(coroutines), waits).rewrite(tree.body)
    if restrict is not None:
        body = [restrict(statement) for statement in body]
    code = _compile_function([ast.Global(sorted(bound)), *body] if bound else body, waits)
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        line = next((s.lineno for s in body if any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(s))), 1)
        raise SyntaxError("'yield' outside function", (FILENAME, line, 1, None))
    # Without these flags locals() are the globals, as they are at the top of a module.
    flags = code.co_flags & ~(inspect.CO_OPTIMIZED | inspect.CO_NEWLOCALS)
    return code.replace(co_name="<module>", co_qualname="<module>", co_flags=flags)


class _ServerImports(ast.NodeTransformer):
    """`import files` and `from files import read` of a server, which is a global and no module: models write them
    often. A standard module of that name is imported as ever."""

    def __init__(self, servers: frozenset[str]) -> None:
        self._servers = servers - sys.stdlib_module_names

    def visit_Import(self, node: ast.Import) -> Any:
        modules = [alias for alias in node.names if alias.name not in self._servers]
        if len(modules) == len(node.names):
            return node
        named = [alias for alias in node.names if alias.name in self._servers and alias.asname]
        made: list[ast.stmt] = [self._assign(alias.asname or "", ast.Name(alias.name, ast.Load())) for alias in named]
        if modules:
            made.append(ast.Import(modules))
        return [ast.copy_location(one, node) for one in made or [ast.Pass()]]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if node.level or node.module not in self._servers or node.names[0].name == "*":
            return node
        server = ast.Name(node.module, ast.Load())
        made = [
            self._assign(alias.asname or alias.name, ast.Attribute(server, alias.name, ast.Load()))
            for alias in node.names
        ]
        return [ast.copy_location(one, node) for one in made]

    def _assign(self, name: str, value: ast.expr) -> ast.stmt:
        return ast.fix_missing_locations(ast.Assign([ast.Name(name, ast.Store())], value, lineno=1, col_offset=0))


def _compile_function(body: list[ast.stmt], waits: bool) -> types.CodeType:
    future = [s for s in body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    rest: list[ast.stmt] = [s for s in body if s not in future] or [ast.Pass()]
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    kind: Any = ast.AsyncFunctionDef if waits else ast.FunctionDef
    function = kind(name="program", args=arguments, body=rest, decorator_list=[], type_params=[])
    module = ast.fix_missing_locations(ast.Module([*future, function], []))
    code = compile(module, FILENAME, "exec", dont_inherit=True)
    return next(constant for constant in code.co_consts if isinstance(constant, types.CodeType))


def _survey(node: ast.AST, bound: set[str]) -> bool:
    """Whether this awaits, outside any function; adds the names to `bound` that it binds there."""
    waits = False
    for child in ast.iter_child_nodes(node):
        kind = type(child)
        if kind is ast.Name:
            if type(child.ctx) is not ast.Load:
                bound.add(child.id)
            continue
        if kind in (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef):
            bound.add(child.name)
            continue
        if kind is ast.Lambda:
            continue
        if kind is ast.alias:
            bound.add(child.asname or child.name.partition(".")[0])
        elif kind in (ast.ExceptHandler, ast.MatchAs, ast.MatchStar) and child.name:
            bound.add(child.name)
        elif kind is ast.MatchMapping and child.rest:
            bound.add(child.rest)
        inner = _survey(child, bound)
        if kind in (ast.Await, ast.AsyncFor, ast.AsyncWith) or (kind is ast.comprehension and child.is_async):
            waits = True
        elif kind is not ast.GeneratorExp:
            waits = waits or inner
    bound.discard("*")
    return waits


def _awaited_names(nodes: list[ast.AST]) -> frozenset[str]:
    """Names that may hold an awaitable which the code awaits later on."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Await):
            names |= _names(node.value)
        elif isinstance(node, ast.Call) and _called(node) in _SINKS:
            for argument in (*node.args, *(k.value for k in node.keywords)):
                names |= _names(argument)
        elif isinstance(node, (ast.Return, ast.Yield)) and isinstance(node.value, ast.Name):
            names.add(node.value.id)
        elif isinstance(node, (ast.AsyncFor, ast.For)) and any(isinstance(n, ast.Await) for n in ast.walk(node)):
            names |= _names(node.iter)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)) and any(
            isinstance(n, ast.Await) for n in ast.walk(node)
        ):
            names |= {name for generator in node.generators for name in _names(generator.iter)}
    return frozenset(names)


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


class Inserted(ast.Name):
    """A name that this module put into the tree, and not the model."""


class _TakeValues(ast.NodeTransformer):
    """Wraps tool calls that are plainly used as values, so that they are values and not awaitables. Where code
    may await, the wrapper does too: other tasks go on meanwhile, and timeouts reach it."""

    def __init__(self, servers: frozenset[str], nodes: list[ast.AST], waits: bool) -> None:
        self.servers, self.waits, self.keeps = servers, waits, False
        self.awaited = _awaited_names(nodes)
        self.passing: frozenset[str] = frozenset()
        """Plain functions of the code that hand a tool call's awaitable on."""
        self.calls_of = {k: n for n in nodes if isinstance(n, ast.Call) for k in n.keywords}
        functions = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        returned = {n for n in nodes if isinstance(n, ast.Return) and self._is_tool_call(n.value)}
        self.defined = frozenset(f.name for f in functions)
        self.passing = frozenset(
            f.name
            for f in functions
            if returned and isinstance(f, ast.FunctionDef) and not returned.isdisjoint(ast.walk(f))
        ) | {
            target.id
            for n in nodes
            if isinstance(n, ast.Assign) and isinstance(n.value, ast.Lambda) and self._is_tool_call(n.value.body)
            for target in n.targets
            if isinstance(target, ast.Name)
        }

    def _is_tool_call(self, node: ast.AST | None) -> bool:
        if not isinstance(node, ast.Call):
            return False
        function = node.func
        if isinstance(function, ast.Subscript):
            return isinstance(function.value, ast.Name) and function.value.id in self.servers
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            return function.value.id in self.servers or function.attr in self.passing
        return _called(node) in self.passing

    def _holds_tool_calls(self, node: ast.AST) -> bool:
        """Whether this builds a container out of tool calls; they all leave before the first is waited for."""
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return any(self._is_tool_call(element) for element in node.elts)
        if isinstance(node, ast.Dict):
            return any(self._is_tool_call(value) for value in node.values)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            return self._is_tool_call(node.elt)
        return isinstance(node, ast.DictComp) and self._is_tool_call(node.value)

    def _uses(self, parent: ast.AST, child: ast.AST) -> bool:
        if isinstance(parent, _USES):
            return True
        if isinstance(parent, ast.Return):
            return self.waits
        if isinstance(parent, ast.Assign):
            return all(self._keeps_value(t) for t in parent.targets)
        if isinstance(parent, (ast.AnnAssign, ast.NamedExpr)):
            return self._keeps_value(parent.target)
        if isinstance(parent, ast.Dict):
            return child in parent.keys
        if isinstance(parent, ast.DictComp):
            return child is parent.key
        if isinstance(parent, ast.keyword):
            return self._call_uses(self.calls_of[parent])
        if isinstance(parent, ast.Call) and child is not parent.func:
            return self._call_uses(parent)
        return False

    def _call_uses(self, call: ast.Call) -> bool:
        # The code's own functions may await what they are given.
        return not self.keeps and _called(call) not in _SINKS and _called(call) not in self.defined

    def _keeps_value(self, target: ast.AST) -> bool:
        return not (_names(target) & self.awaited)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        before = self.waits, self.keeps
        scope = isinstance(node, _SCOPES)
        if isinstance(node, ast.Assign) and not all(self._keeps_value(target) for target in node.targets):
            self.keeps = True
        for field, old in ast.iter_fields(node):
            if scope:
                self.waits = isinstance(node, ast.AsyncFunctionDef) and field == "body"
            if isinstance(old, list):
                setattr(node, field, [self._child(node, item) for item in old])
            elif isinstance(old, ast.AST):
                setattr(node, field, self._child(node, old))
        self.waits, self.keeps = before
        return node

    def _child(self, parent: ast.AST, child: object) -> object:
        if type(child) in _LEAVES or not isinstance(child, ast.AST):
            return child
        call = self._is_tool_call(child)
        holds = self._holds_tool_calls(child)
        uses = (call or holds) and self._uses(parent, child)
        self.generic_visit(child)
        if isinstance(child, (ast.Set, ast.SetComp)) and holds:
            # Members of a set are hashed, which would wait for each before the next one leaves.
            elements: Any = ast.List(child.elts, ast.Load()) if isinstance(child, ast.Set) else None
            elements = elements or ast.ListComp(child.elt, child.generators)
            if isinstance(parent, ast.Call) and _called(parent) in _SINKS:
                return ast.copy_location(elements, child)
            return ast.Call(ast.Name("set", ast.Load()), [self._wrap(elements, child, VALUES, WAIT_ALL)], [])
        if isinstance(child, ast.GeneratorExp):
            if uses and isinstance(parent, ast.Call) and _called(parent) in _EAGER:
                return self._wrap(ast.ListComp(child.elt, child.generators), child, VALUES, WAIT_ALL)
            return child
        if uses and call:
            return self._wrap(child, child, VALUE, WAIT)
        if uses and isinstance(child, _CONTAINERS):
            return self._wrap(child, child, VALUES, WAIT_ALL)
        return child

    def _wrap(self, value: Any, at: ast.AST, plain: str, waiting: str) -> ast.expr:
        wrapped = ast.Call(Inserted(waiting if self.waits else plain, ast.Load()), [value], [])
        return ast.copy_location(ast.Await(wrapped) if self.waits else wrapped, at)


class _TopLevel:
    """Rewrites statements outside any function: what a function's body may not hold, the final expression, imports
    over a server, and `main()` of a coroutine function, which a notebook would await."""

    def __init__(self, servers: frozenset[str], coroutines: frozenset[str], waits: bool) -> None:
        self.servers, self.coroutines, self.waits = servers, coroutines, waits

    def rewrite(self, body: list[ast.stmt]) -> list[ast.stmt]:
        if body and isinstance(body[-1], ast.Expr):
            last = body[-1]
            body[-1] = ast.copy_location(ast.Return(last.value), last)
        return self._block(body)

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [new for statement in body for new in self._statement(statement)]

    def _statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return [node]
        if isinstance(node, ast.Expr):
            return [self._awaited(node)]
        if isinstance(node, ast.Global):
            return [ast.copy_location(ast.Pass(), node)]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            plain = ast.Assign([node.target], node.value) if node.value is not None else ast.Pass()
            return [ast.copy_location(plain, node)]
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            module = ast.Constant("." * node.level + (node.module or ""))
            return [ast.copy_location(ast.Expr(ast.Call(Inserted(IMPORT_ALL, ast.Load()), [module], [])), node)]
        if isinstance(node, ast.Import):
            bound = [a.asname or a.name.partition(".")[0] for a in node.names]
            return [node, *(self._blend(name, node) for name in bound if name in self.servers)]
        for field in ("body", "orelse", "finalbody"):
            if isinstance(inner := getattr(node, field, None), list):
                setattr(node, field, self._block(inner))
        if isinstance(node, (ast.Try, ast.TryStar)):
            for handler in node.handlers:
                handler.body = self._block(handler.body)
        if isinstance(node, ast.Match):
            for case in node.cases:
                case.body = self._block(case.body)
        return [node]

    def _awaited(self, node: ast.Expr) -> ast.Expr:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in self.coroutines:
            finished = ast.Call(Inserted(FINISH if self.waits else RUN, ast.Load()), [call], [])
            node.value = ast.copy_location(ast.Await(finished) if self.waits else finished, call)
        return node

    def _blend(self, name: str, at: ast.stmt) -> ast.stmt:
        # `import time` must not take the tools of a server called `time` away.
        call = ast.Call(Inserted(BLEND, ast.Load()), [ast.Constant(name), ast.Name(name, ast.Load())], [])
        return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], call), at)
