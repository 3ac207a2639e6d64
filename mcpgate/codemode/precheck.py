"""Check code before it runs: calls to tools that do not exist, or with arguments they do not accept. Pure.

Only certain mistakes are reported; whatever might work at run time is left to run."""

import ast
import builtins
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mcpgate.catalog.brief import brief
from mcpgate.catalog.catalog import Catalog, Server, nearest
from mcpgate.catalog.tools import Tool
from mcpgate.codemode.attachments import NAMES as ATTACHMENTS

_MAX_FAULTS = 5
_MAX_CHARS = 50_000
_MAX_SEARCHED = 200_000
"""Maximum characters of code that are searched for servers' names."""
_MAX_PARAMETERS = 100_000
_MAX_GUESSES = 20
"""Parameters that calls are compared with, and unknown names whose nearest is looked for, in one program; the rest is
left to run."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One certain mistake."""

    line: int
    message: str
    tool: Tool | None = None
    """The tool whose shape helps to fix it."""


def precheck(code: str, catalog: Catalog, has_session: bool = False) -> list[Fault]:
    """The certain mistakes in a program. Empty if the code cannot be parsed here: the guest's newer Python may parse
    it, or will report the error."""
    if len(code) > _MAX_CHARS:
        return []  # parsing it here would block everyone; the guest parses it on its own time
    try:
        tree = ast.parse(code)
        names = _Names(tree)
        faults = list(itertools.islice(_faults(tree, names, catalog, has_session), _MAX_FAULTS))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return sorted(faults, key=lambda fault: fault.line)


def mentioned_servers(code: str, catalog: Catalog) -> list[Server]:
    """The servers that the code uses by their identifiers; where it cannot be parsed here, those that occur in it."""
    try:
        if len(code) > _MAX_CHARS:
            raise ValueError("too long to be parsed here")
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        used = set(re.findall(r"\w+", code[:_MAX_SEARCHED]))
    else:
        names = _Names(tree)
        standard = sys.stdlib_module_names
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used -= names.bound | (names.imported & standard)
        used |= names.modules - standard
    return [server for server in catalog.servers if server.ident in used]


class _Names:
    """The names that a program binds itself."""

    def __init__(self, tree: ast.AST) -> None:
        self.bound: set[str] = set()
        self.imported: set[str] = set()
        self.modules: set[str] = set()
        """From which it imports."""
        self.star = False
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
                self.bound.add(node.id)
            elif isinstance(node, ast.arg):
                self.bound.add(node.arg)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.bound.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                from_ = (
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                )
                self.modules.update(name.partition(".")[0] for name in from_)
                self.star |= any(alias.name == "*" for alias in node.names)
                self.imported.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            elif (isinstance(node, ast.ExceptHandler) and node.name) or (
                isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name
            ):
                self.bound.add(node.name)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                self.bound.add(node.rest)


def _faults(tree: ast.AST, names: _Names, catalog: Catalog, has_session: bool) -> Iterator[Fault]:
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    servers = {server.ident: server for server in catalog.servers}
    guessed: dict[str, list[str]] = {}
    parameters = 0
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load)
        ):
            continue
        name = node.value.id
        if name in names.bound:
            continue
        server = servers.get(name)
        if server is None:
            unknown = name not in names.imported and not names.star and not hasattr(builtins, name) and not has_session
            if unknown and id(node) in calls:
                if name not in guessed:
                    guessed[name] = nearest(name, servers, 1) if len(guessed) < _MAX_GUESSES else []
                if near := guessed[name]:
                    yield Fault(node.lineno, f"there is no server {name!r}; did you mean {near[0]!r}?")
            continue
        tool = server.accepted.get(node.attr)
        parameters += len(tool.parameters) if tool is not None else 0
        if parameters > _MAX_PARAMETERS:
            return
        yield from _in_server(server, node, calls.get(id(node)), name in names.imported)


def _in_server(server: Server, node: ast.Attribute, call: ast.Call | None, is_module: bool) -> Iterator[Fault]:
    if node.attr.startswith("_") or (server.trouble and not server.tools):
        return
    tool = server.accepted.get(node.attr)
    if tool is None:
        if node.attr in ATTACHMENTS:
            return  # which of them the server has is known when the code runs
        if is_module:
            return  # `import time` next to a server called `time`: either may be meant
        near = nearest(node.attr, [t.ident for t in server.tools])
        close = server.accepted.get(near[0]) if near else None
        hint = f"did you mean {' or '.join(near)}?" if near else f'list_tools(server="{server.ident}") shows its tools'
        yield Fault(node.lineno, f"{server.ident} has no tool {brief(node.attr)}; {hint}", close)
    elif call is not None and (messages := list(_in_call(tool, call))):
        yield Fault(node.lineno, f"{tool.qualified}: {'; '.join(messages)}", tool)


def _in_call(tool: Tool, call: ast.Call) -> Iterator[str]:
    if tool.open_ended and not tool.properties:
        return
    starred = any(isinstance(a, ast.Starred) for a in call.args)
    doubled = any(k.arg is None for k in call.keywords)
    given = {k.arg for k in call.keywords if k.arg is not None}
    known = tool.parameters
    if not tool.open_ended:
        unknown = (n for n in given if n not in known and n not in tool.properties and n not in tool.required)
        for name in sorted(unknown)[:_MAX_FAULTS]:
            near = nearest(name, known, 1, 50)
            yield f"unknown argument {brief(name)}" + (f" (did you mean {near[0]!r}?)" if near else "")
        whole = len(call.args) == 1 and not call.keywords and _may_be_whole(call.args[0])
        if len(call.args) > len(known) and not starred and not whole:
            yield f"takes {len(known)} arguments, {len(call.args)} are given"
    if starred or doubled or (len(call.args) == 1 and not call.keywords and _may_be_whole(call.args[0])):
        return
    given_originals = {known.get(name, name) for name in given} | set(list(known.values())[: len(call.args)])
    missing = [ident for ident, name in known.items() if name in tool.required and name not in given_originals]
    if missing:
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        yield f"missing {', '.join(repr(m) for m in missing[:20])}{more}"


def _may_be_whole(argument: ast.expr) -> bool:
    """Whether one positional argument may be a dict of all arguments."""
    return not isinstance(argument, (ast.Constant, ast.JoinedStr, ast.List, ast.ListComp))


Shape = Callable[[Tool], str]


def explain(faults: list[Fault], shape: Shape) -> str:
    """The text for the model."""
    lines = [f"line {fault.line}: {fault.message}" for fault in faults]
    shapes = dict.fromkeys(shape(fault.tool) for fault in faults if fault.tool is not None)
    return "\n".join(["Not run, nothing was called:", *lines, *(f"  {text}" for text in shapes)])
