"""Long-form pages about servers and tools. Pure: the caller fetches what they need."""

import platform
from itertools import islice
from typing import Any

from mcpgate.catalog.brief import brief, tool_count
from mcpgate.catalog.catalog import Catalog, Server
from mcpgate.catalog.stubs import stub
from mcpgate.catalog.tools import Tool
from mcpgate.telemetry.text import one_line, visible

_MAX_INSTRUCTIONS = 50_000
_MAX_NAME = 200
_MAX_TOOLS = 2_000
_MAX_ENTRIES = 200
"""How much of an upstream's texts and lists a page shows."""


def server_page(
    server: Server,
    instructions: str,
    resources: list[dict[str, Any]],
    templates: list[dict[str, Any]],
    prompts: list[dict[str, Any]],
) -> str:
    """A server's own instructions, its tools by name, its resources and prompts."""
    lines = [f"# {server.ident}" + (f" — {server.about}" if server.about else "")]
    if server.ident != server.name:
        lines.append(f"(configured as {brief(server.name, 200)})")
    if server.trouble:
        lines.append(f"Unavailable: {server.trouble}")
    if instructions:
        lines += ["", visible(instructions[:_MAX_INSTRUCTIONS].strip(), lines=True)]
    if server.tools:
        lines += ["", f"## {tool_count(len(server.tools))}", _names(server)]
    if resources or templates:
        lines += ["", '## Resources (read one with read_docs("SERVER URI"))'.replace("SERVER", server.ident)]
        lines += [
            _entry(r.get("uri"), r)
            for r in (
                *resources[:_MAX_ENTRIES],
                *({**t, "uri": t.get("uriTemplate")} for t in templates[:_MAX_ENTRIES]),
            )
        ]
    if prompts:
        lines += ["", '## Prompts (read one with read_docs("SERVER NAME"))'.replace("SERVER", server.ident)]
        lines += [_prompt(prompt) for prompt in prompts[:_MAX_ENTRIES]]
    return "\n".join(lines)


def tool_page(tool: Tool, observed: Any) -> str:
    """A tool's stub, its annotations and its original name."""
    lines = [stub(tool, observed)]
    annotations = tool.raw.get("annotations")
    if isinstance(annotations, dict) and annotations:
        marks = [one_line(str(name), 60) for name, value in islice(annotations.items(), 20) if value is True]
        if marks:
            lines.append(f"# {', '.join(marks)}")
    if tool.ident != tool.name:
        lines.append(f"# original name: {visible(tool.name, limit=_MAX_NAME)}")
    return "\n".join(lines)


def index_page(catalog: Catalog) -> str:
    """The list of topics."""
    lines = ["Topics: sandbox (what code can use), a server, or server.tool.", ""]
    for server in catalog.servers:
        lines.append(f"{server.ident} ({tool_count(len(server.tools))}){': ' + server.about if server.about else ''}")
    return "\n".join(lines)


_ABOUT_ENGINES = {
    "wasm": "CPython 3.14 in WebAssembly.",
    "restricted": (
        f"RestrictedPython on CPython {platform.python_version()}: only the names below can be imported from modules, "
        "and of asyncio gather, tasks, timeouts, locks and queues. Not supported: except*, metaclasses, exec, eval, "
        "compile, locals(), special attributes such as __dict__ of what the code did not define itself, special "
        "methods beyond operators, containers, iteration, calls, context managers and __init__."
    ),
}


def sandbox_page(engine: str, available: list[str], missing: list[str], limits: dict[str, object]) -> str:
    """What code can use inside the sandbox; the lists come from the guest."""
    shown = ", ".join(f"{name}={value}" for name, value in limits.items())
    return f"""# The sandbox
{_ABOUT_ENGINES.get(engine, "Python.")} Every execution starts fresh; session="name" keeps variables between executions.
No files, no network, no processes, no environment: the servers' tools are the only way out.

## Tools
Every server is a global: files.read_text_file(path="a.txt"), positional or named arguments.
await is optional: x = files.read(...) and x = await files.read(...) mean the same.
In parallel: a, b = await asyncio.gather(files.read(...), docs.search(...)); create_task, TaskGroup and
as_completed work too. Without await, calls run one after the other.
Results are Python values: dicts, lists, numbers, or str. dir(files) lists tools; files["odd-name"](...) takes
original names. A failing tool raises ToolError (.server .tool .message .data); wrong arguments raise
ArgumentError, a ToolError, before anything is called.
Servers with resources or prompts also have files.resources(), files.read_resource(uri), files.prompts() and
files.get_prompt(name, argument="…").
progress("half done") tells the client. elicit("Which one?", {{"size": ["S", "M"], "note": "string"}}) asks the person
there and returns {{"size": …, "note": …}}, or None if they decline; elicit("Delete 5 files?") returns True or False. A
client that cannot be asked is a ToolError. Both count as tool calls.

## Output
Only what is printed, and the value of `return` or of a final expression. Long values are shortened and
kept: load("r7") gives the whole one in a later execution. Images and blobs are handles: .bytes(), .text(), .size,
.mime_type; return one (or a list of them) to see it as MCP content; pass one as an argument to send its data.

## Limits of one execution
{shown}
timeout_s counts the code's own time, tool_wait_s its waiting for tools; execute_code(timeout_s=…) lowers both.
time.sleep and asyncio.sleep work. There are no threads: a ThreadPoolExecutor runs its tasks one by one, so
use asyncio.gather for parallel calls. Subprocesses do not work.

## Modules
Available: {", ".join(available)}
Missing: {", ".join(missing)}; nothing from PyPI."""


def _names(server: Server) -> str:
    shown = [tool.ident for tool in server.tools[:_MAX_TOOLS]]
    more = len(server.tools) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _entry(name: Any, item: dict[str, Any]) -> str:
    about = item.get("description") or item.get("title") or item.get("name") or ""
    kind = f" [{one_line(item['mimeType'], 60)}]" if isinstance(item.get("mimeType"), str) else ""
    return f"- {_word(name, 500)}{kind}: {_word(about, 160)}"


def _prompt(prompt: dict[str, Any]) -> str:
    arguments = prompt.get("arguments")
    given = arguments[:20] if isinstance(arguments, list) else []
    names = [_word(a.get("name"), 60) for a in given if isinstance(a, dict)]
    return f"- {_word(prompt.get('name'), 200)}({', '.join(names)}): {_word(prompt.get('description') or '', 160)}"


def _word(value: Any, room: int) -> str:
    """A text of an upstream, made to fit within a line."""
    return one_line(value if isinstance(value, str) else brief(value, room), room)
