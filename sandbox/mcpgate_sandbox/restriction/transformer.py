"""RestrictedPython's transformer with the rules of this engine: more of the language, fewer wrappers.

Kept from RestrictedPython: whatever statement is not known is refused, names are checked wherever they are bound or
read, every attribute that is read goes through `_getattr_`, every object whose attribute is written through
`_write_`. Left out: guards of iteration and of items, for nothing here is protected item by item.
"""

import ast
from typing import Any

from mcpgate_guest import rewrite
from RestrictedPython.transformer import INSPECT_ATTRIBUTES, RestrictingNodeTransformer

from mcpgate_sandbox.restriction import policy

_SPELLED = {"TryStar": "except*", "TypeAlias": "the type statement"}
GETATTR, WRITE = "_getattr_", "_write_"


class Transformer(RestrictingNodeTransformer):
    """Raises SyntaxError, with the line, at the first thing that is not allowed."""

    def __init__(self) -> None:
        super().__init__()
        self._classes: list[str] = []
        """Of the class bodies around, outermost first."""

    def error(self, node: ast.AST, info: str) -> None:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        raise SyntaxError(f"{info} (restricted engine)", (rewrite.FILENAME, line, column, None))

    def not_allowed(self, node: ast.AST) -> None:
        kind = type(node).__name__
        self.error(node, f"{_SPELLED.get(kind, kind)} is not available here")

    # --- names

    def check_name(self, node: Any, name: str | None, allow_magic_methods: bool = False) -> None:
        if name is None or not name.startswith("_"):
            return
        if allow_magic_methods and name in policy.DEFINABLE and self._classes:
            return
        # Names that both begin and end with an underscore are the guards' own; names with two in front are special
        # or mangled.
        if name.startswith("__") or (name.endswith("_") and name.strip("_")):
            self.error(node, f"the name {name!r} is reserved")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        reading_own_name = node.id == "__name__" and isinstance(node.ctx, ast.Load)
        in_class_body = self._classes and node.id in policy.CLASS_ATTRIBUTES and isinstance(node.ctx, ast.Store)
        if not reading_own_name and not in_class_body:
            self.check_name(node, node.id)
        return node

    def visit_Inserted(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Name(node.id, node.ctx), node)  # rewrite.py put it there, not the model

    def visit_Global(self, node: ast.Global) -> ast.AST:
        for name in node.names:
            self.check_name(node, name)
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        for name in node.names:
            self.check_name(node, name)
        return node

    def check_import_names(self, node: Any) -> ast.AST:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            if module.startswith("_") and module != "__future__":
                self.error(node, f"there is no module {module!r} here")
        for alias in node.names:
            self.check_name(node, alias.name)
            self.check_name(node, alias.asname)
        names: ast.AST = node
        return names

    # --- attributes

    def check_attribute(self, node: ast.AST, name: str) -> None:
        """What no attribute may be called, whatever the object; the guard looks at the object."""
        if name in INSPECT_ATTRIBUTES:
            self.error(node, f"the attribute {name!r} is not available here")
        if name.startswith("__") and name not in policy.READABLE and (name.endswith("__") or not self._classes):
            self.error(node, f"the attribute {name!r} is not available here")

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.check_attribute(node, node.attr)
        name = node.attr
        if name.startswith("__") and not name.endswith("__"):
            name = f"_{self._classes[-1].lstrip('_')}{name}"  # as the compiler does inside a class
        value: ast.expr = self.visit(node.value)
        if isinstance(node.ctx, ast.Load):
            read = ast.Call(ast.Name(GETATTR, ast.Load()), [value, ast.Constant(name)], [])
            read = ast.copy_location(read, node)
            return ast.fix_missing_locations(read)
        if name.startswith("__"):
            self.error(node, f"the attribute {name!r} cannot be changed here")
        checked = ast.copy_location(ast.Call(ast.Name(WRITE, ast.Load()), [value, ast.Constant(name)], []), node)
        return ast.fix_missing_locations(ast.copy_location(ast.Attribute(checked, name, node.ctx), node))

    # --- what RestrictedPython wraps and this engine does not

    def _contents(self, node: Any) -> ast.AST:
        contents: ast.AST = self.node_contents_visit(node)
        return contents

    visit_Subscript = visit_AugAssign = visit_Assign = visit_AnnAssign = _contents
    visit_For = visit_comprehension = visit_With = visit_withitem = _contents
    visit_AsyncFor = visit_AsyncWith = visit_Await = _contents
    visit_Match = visit_match_case = visit_MatchSingleton = visit_MatchSequence = visit_MatchOr = _contents

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in ("exec", "eval", "compile"):
            self.error(node, f"{node.func.id}() is not available here")
        return self._contents(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.check_function_argument_names(node)
        return self._contents(node)

    def visit_FunctionDef(self, node: Any) -> ast.AST:
        self.check_name(node, node.name, allow_magic_methods=True)
        self.check_function_argument_names(node)
        self._no_type_parameters(node)
        return self._contents(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.check_name(node, node.name)
        self._no_type_parameters(node)
        if any(keyword.arg == "metaclass" or keyword.arg is None for keyword in node.keywords):
            self.error(node, "metaclasses are not available here")
        self._classes.append(node.name)
        try:
            return self._contents(node)
        finally:
            self._classes.pop()

    def _no_type_parameters(self, node: Any) -> None:
        if getattr(node, "type_params", None):
            self.error(node, "type parameters are not available here")

    # --- patterns: the interpreter looks their attributes up on its own

    def visit_MatchValue(self, node: ast.MatchValue) -> ast.AST:
        self._check_dotted(node.value)
        return node

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        self.check_name(node, node.rest)
        for key in node.keys:
            self._check_dotted(key)
        node.patterns = [self.visit(pattern) for pattern in node.patterns]
        return node

    def visit_MatchClass(self, node: ast.MatchClass) -> ast.AST:
        self._check_dotted(node.cls)
        for name in node.kwd_attrs:
            self._check_raw_attribute(node, name)
        node.patterns = [self.visit(pattern) for pattern in node.patterns]
        node.kwd_patterns = [self.visit(pattern) for pattern in node.kwd_patterns]
        return node

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        self.check_name(node, node.name)
        return node

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        self.check_name(node, node.name)
        return self._contents(node)

    def _check_dotted(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute):
                self._check_raw_attribute(inner, inner.attr)
            elif isinstance(inner, ast.Name):
                self.check_name(inner, inner.id)

    def _check_raw_attribute(self, node: ast.AST, name: str) -> None:
        self.check_attribute(node, name)
        if name.startswith("_") or name in policy.NOT_IN_PATTERNS:
            self.error(node, f"the attribute {name!r} is not available in a pattern")


def restrict(statement: ast.stmt) -> ast.stmt:
    """One statement of a program under the policy. Raises SyntaxError."""
    restricted: ast.stmt = Transformer().visit(statement)
    return restricted
