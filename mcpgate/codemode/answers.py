"""What the model reads after an execution: what the code printed and returned, images as images, errors with one
hint."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from mcpgate.catalog.catalog import Catalog, nearest
from mcpgate.codemode import results
from mcpgate.codemode.handles import HandleStore, Kept
from mcpgate.codemode.media import image_type
from mcpgate.config.settings import Settings
from mcpgate.errors import McpgateError, UnknownTool
from mcpgate.governance.callers import Caller
from mcpgate.tokens import estimate
from mcpgate_sandbox.engine import Handle, Outcome
from mcpgate_sandbox.errors import CodeFailed, LimitReached

_MAX_ATTACHED = 20
"""Images and blobs attached to one answer; further ones are only named."""
_BESIDE = "_content"
"""The key under which values.py puts what structured content cannot carry."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a meta-tool."""

    content: tuple[dict[str, Any], ...]
    """MCP content in reading order."""
    is_error: bool = False
    outcome: Outcome | None = None

    @classmethod
    def of_text(cls, text: str, is_error: bool = False) -> "Answer":
        return cls(({"type": "text", "text": text},) if text else (), is_error)

    def with_text(self, text: str) -> "Answer":
        """The same with a text after it, if there is one."""
        added = {"type": "text", "text": text}
        return dataclasses.replace(self, content=(*self.content, added)) if text else self

    @property
    def text(self) -> str:
        return "\n".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def blocks(self) -> tuple[dict[str, Any], ...]:
        """The blocks that are not text."""
        return tuple(block for block in self.content if block["type"] != "text")


class Answers:
    """Writes answers."""

    def __init__(self, settings: Settings, handles: HandleStore) -> None:
        self._settings, self._handles = settings, handles

    def of(self, caller: Caller, outcome: Outcome, catalog: Catalog) -> Answer:
        try:
            return self._of(caller, outcome, catalog)
        except RecursionError:
            shown = dataclasses.replace(outcome, result="(the result is nested too deeply to be shown)")
            return self._of(caller, shown, catalog)

    def _of(self, caller: Caller, outcome: Outcome, catalog: Catalog) -> Answer:
        max_tokens = self._settings.config.code_mode.max_result_tokens
        content: list[dict[str, Any]] = []
        stdout = outcome.stdout.rstrip("\n")
        has_result = outcome.error is None and outcome.result is not None
        # Printed and returned text share the room; an error message has its own.
        room = max_tokens // 2 if stdout and has_result else max_tokens
        if stdout:
            content.append(_text(self._shaped(caller, stdout, room)))
            room = max(max_tokens - estimate(content[0]["text"]), max_tokens // 2)
        if has_result:
            content += self._returned(caller, outcome.result, room)
        if outcome.stderr.strip():
            shortened = results.shorten_text(outcome.stderr.strip(), max(100, max_tokens // 4))
            content.append(_text("stderr: " + shortened))
        if outcome.error is not None:
            explained = _explain(outcome, catalog)
            content.append(_text(results.shorten_text(explained, max(300, max_tokens // 2))))
        content += [_text(f"[{note}]") for note in outcome.notes]
        if not content:
            content.append(_text("(done; the code printed and returned nothing)"))
        return Answer(tuple(_joined(content)), outcome.error is not None, outcome)

    def _returned(self, caller: Caller, result: Any, room: int) -> Iterator[dict[str, Any]]:
        """The value as text, with its images and blobs in their places, and those deeper in it after their text."""
        count = sum(1 for _ in _handles(result))
        if not 0 < count <= _MAX_ATTACHED:
            yield _text(self._shaped(caller, self._named(caller, result), room))
            return
        parts = list(_parts(result))
        rooms = max(50, room // max(1, sum(not isinstance(part, Handle) for part in parts)))
        for part in parts:
            if not isinstance(part, Handle):
                yield _text(self._shaped(caller, self._named(caller, part), rooms))
            for handle in _handles(part):
                yield self._attached(caller, handle, rooms)

    def _attached(self, caller: Caller, handle: Handle, room: int) -> dict[str, Any]:
        kept = self._find(caller, handle)
        if kept is None:
            return _text(f"({_name(handle)} was dropped)")
        return _text(self._shaped(caller, kept.value, room)) if kept.data is None else _block(kept, kept.data)

    def _find(self, caller: Caller, handle: Handle) -> Kept | None:
        try:
            return self._handles.get(caller.owner, handle.id, caller.account)
        except McpgateError:
            return None

    def _named(self, caller: Caller, value: Any) -> Any:
        """A value with its handles replaced by their names."""
        if isinstance(value, Handle):
            # What comes out of the sandbox says no more than which one it is.
            return _name(self._find(caller, value) or value)
        if isinstance(value, dict):
            return {k: self._named(caller, v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._named(caller, v) for v in value]
        return value

    def _shaped(self, caller: Caller, value: Any, room: int) -> str:
        shaped = results.shape(value, room)
        if not shaped.shortened:
            return shaped.text
        kept = self._handles.keep_value(caller.owner, value, caller.account)
        return f'{shaped.text}\n[whole value: load("{kept.id}") in a later execute_code]'


def _parts(value: Any) -> Iterator[Any]:
    """A returned value in pieces: each handle, and what is between them."""
    if isinstance(value, dict) and isinstance(beside := value.get(_BESIDE), list):
        yield {name: part for name, part in value.items() if name != _BESIDE}
        yield from beside
    elif isinstance(value, list) and any(_attaches(item) for item in value):
        between: list[Any] = []
        for item in value:
            if not _attaches(item):
                between.append(item)
                continue
            if between:
                yield _merged(between)
                between = []
            yield from _parts(item)
        if between:
            yield _merged(between)
    else:
        yield value


def _attaches(item: Any) -> bool:
    """Whether an item of a returned list is attached: a handle, or a tool's result that contains one."""
    if isinstance(item, dict):
        return isinstance(item.get(_BESIDE), list)
    if isinstance(item, list):
        return any(isinstance(part, Handle) for part in item)
    return isinstance(item, Handle)


def _merged(items: list[Any]) -> Any:
    if all(isinstance(item, str) for item in items):
        return "\n".join(items)
    return items[0] if len(items) == 1 else items


def _block(kept: Kept, data: str) -> dict[str, Any]:
    if kept.kind == "image":
        mime_type = image_type(data)
        if mime_type is None:
            return _text(f"({_name(kept)} is not shown: its bytes are not PNG, JPEG, GIF or WebP)")
        return {"type": "image", "data": data, "mimeType": mime_type}
    if kept.kind == "audio":
        return {"type": "audio", "data": data, "mimeType": kept.mime_type}
    uri = kept.uri or f"mcpgate://handles/{kept.id}"
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kept.mime_type, "blob": data}}


def _name(handle: Handle | Kept) -> str:
    """As code prints it: see Handle in the guest's wire.py."""
    where = f" {handle.uri}" if handle.uri else ""
    return f"<{handle.kind} {handle.id}: {handle.mime_type}, {handle.size:,} bytes{where}>"


def _handles(value: Any) -> Iterator[Handle]:
    """Every handle in a value."""
    if isinstance(value, Handle):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _handles(item)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _joined(content: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Adjacent texts merged."""
    texts: list[str] = []
    for block in content:
        if block["type"] == "text":
            texts.append(block["text"])
            continue
        if texts:
            yield _text("\n".join(texts))
            texts = []
        yield block
    if texts:
        yield _text("\n".join(texts))


def _explain(outcome: Outcome, catalog: Catalog) -> str:
    error = outcome.error
    if isinstance(error, CodeFailed):
        lines = [error.traceback, str(error)] if error.traceback else [str(error)]
        if hint := _hint(error, catalog, outcome.tool_calls):
            lines.append(f"Hint: {hint}")
        return "\n".join(lines)
    text = str(error)
    if isinstance(error, LimitReached) and outcome.tool_calls:
        text += f"; {outcome.tool_calls} tool calls had been made"
    return text


def _hint(error: CodeFailed, catalog: Catalog, tool_calls: int) -> str:
    if error.type == "NameError" and error.name:
        if catalog.withholds(error.name):
            return f"server {error.name!r} is not granted to this key"
        near = _meant(error.name, catalog)
        if near:
            return f"did you mean {' or '.join(near)}?"
        servers = ", ".join(server.ident for server in catalog.servers[:12])
        known = f"servers: {servers}{' …' if len(catalog.servers) > 12 else ''}. " if servers else ""
        return f"{known}Variables do not outlive an execution; pass session=… to keep them"
    if error.type in ("ModuleNotFoundError", "ImportError"):
        module = (error.name or "").partition(".")[0]
        server = catalog.find_server(module)
        if server is not None:
            return f"{server.ident} is already a global, no import needed: {server.ident}.TOOL(…)"
        if near := nearest(module, [server.ident for server in catalog.servers], 1, 75):
            return f"did you mean the server {near[0]}? It is a global and needs no import"
        return 'only the standard library is available; read_docs("sandbox") lists it'
    if error.type in ("FileNotFoundError", "PermissionError"):
        return "there are no files in the sandbox; use a server's tools to read and write them"
    if error.type == "ToolError" and tool_calls > 1:
        return f"{tool_calls} tool calls were made, the last one failed; earlier ones may have had effects"
    if error.type in ("KeyError", "TypeError", "AttributeError", "IndexError") and tool_calls:
        return "print the value; describe_tools shows what a tool returns"
    return ""


def _meant(name: str, catalog: Catalog) -> list[str]:
    """What an unknown name may mean: a server, or a tool by its bare or flat name (`server__tool`)."""
    servers = nearest(name, [server.ident for server in catalog.servers], 2)
    tools = [tool.qualified for server in catalog.servers if (tool := server.accepted.get(name))][:3]
    if "__" in name and not tools:
        try:
            return [f"{catalog.get_tool(name).qualified}(…)"]
        except UnknownTool as error:
            tools = [f"{near}(…)" for near in error.data.get("nearest", ())][:2]
    return servers or tools
