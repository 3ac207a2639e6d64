"""Writes docs/reference/ from the code: settings, commands, routes, errors, metrics, the sandbox's modules.

    python -m docs.reference

The pages are committed, so that the repository shows them and a diff shows a change of the public contract.
tests/test_docs.py fails while a page is out of date.
"""

import argparse
import ast
import asyncio
import enum
import importlib
import inspect
import json
import pkgutil
import re
import textwrap
import types
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from mcpgate import errors, lifecycle
from mcpgate.api import oauth
from mcpgate.api.admin.routes import AdminFace
from mcpgate.api.dashboard import face as dashboard
from mcpgate.api.http import resource, routing
from mcpgate.api.llm import batches as llm_batches
from mcpgate.api.llm import errors as llm_errors
from mcpgate.api.llm import face as llm_face
from mcpgate.api.llm import gemini_face
from mcpgate.api.llm import stored as llm_stored
from mcpgate.api.llm.face import LlmFace
from mcpgate.api.llm.gemini_face import GeminiFace
from mcpgate.api.llm.stored import StoredFace
from mcpgate.api.mcp import http, sse
from mcpgate.api.server import Health, admin_routes
from mcpgate.app import make_engine
from mcpgate.cli import main
from mcpgate.config.governance import KeySpec
from mcpgate.config.settings import Config, SandboxConfig
from mcpgate.telemetry.metrics import Metrics
from mcpgate_sandbox.restriction import policy

FOLDER = Path(__file__).parent / "reference"
_HEAD = "<!-- Written by docs/reference.py from the code. Do not edit: run `python -m docs.reference`. -->\n"


def pages() -> dict[str, str]:
    """Every page by file name. Starts both sandbox engines, which know their own modules."""
    written = {
        "index.md": _index(),
        "settings.md": settings(),
        "commands.md": commands(),
        "routes.md": routes(),
        "errors.md": error_codes(),
        "metrics.md": metrics(),
        "sandbox.md": asyncio.run(sandbox()),
    }
    return {name: f"{_HEAD}\n{text.strip()}\n" for name, text in written.items()}


def _index() -> str:
    return """# Reference

These pages are generated from the code.

| page | content |
|---|---|
| [Settings](settings.md) | every key of the configuration file, with type, default and bounds |
| [Commands](commands.md) | every command and option |
| [Routes](routes.md) | every HTTP route, with its parameters |
| [Errors](errors.md) | every error code and HTTP status |
| [Metrics](metrics.md) | every Prometheus metric |
| [Sandbox modules](sandbox.md) | what code can import, and the limits of an execution |

[servers.example.yaml](../../servers.example.yaml) shows every setting in one file.
"""


# --- settings

_SETTINGS = """# Settings

One YAML file; JSON works too. `mcpgate` looks for `mcpgate.yaml`, `mcpgate.yml` and `mcpgate.json`: first in the
current folder, then in the user's configuration folder. `-c FILE` or `$MCPGATE_CONFIG` names another file.

- `${VAR}` and `${VAR:-default}` come from the environment. `${env:VAR}` means the same.
- An unknown key is an error that names the nearest known key. A duplicate key is an error too.
- The file is watched. A valid edit takes effect without a restart. An invalid edit is rejected; the previous
  configuration stays active. Settings marked *at start* need a restart.
- *Periods* are a number and a unit: `30s`, `5m`, `1h`, `1d`, `1w`, `1M`, `1Q`, `1Y`.
- *Globs* use `*`, `?` and `[…]`.
"""


def settings() -> str:
    """Every setting of the configuration file."""
    lines = [_SETTINGS]
    later: list[type[BaseModel]] = []
    for name, field in Config.model_fields.items():
        model = _model_of(field.annotation)
        where = f"{name}.NAME" if get_origin(field.annotation) is dict else name
        lines += [f"## `{name}`", "", *_about(model), *_fields_table(model, where, later), ""]
    lines += ["## Objects", "", "Values that several settings share.", ""]
    done: set[type[BaseModel]] = set()
    while later:
        model = later.pop(0)
        if model not in done:
            done.add(model)
            lines += [f"### {_title(model)}", "", *_about(model), *_fields_table(model, "", later), ""]
    return "\n".join(lines)


def _about(model: type[BaseModel]) -> list[str]:
    about = inspect.cleandoc(model.__doc__) if "__doc__" in vars(model) and model.__doc__ else ""
    return [" ".join(about.split()), ""] if about else []


def _fields_table(model: type[BaseModel], where: str, later: list[type[BaseModel]]) -> list[str]:
    described = docstrings_of(model)
    rows = []
    own = vars(model).get("__annotations__", {})
    for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] not in own):
        kind, models = _kind(field.annotation, field.metadata)
        later += models
        about = described.get(name, "")
        if f"{where}.{name}" in lifecycle._FIXED:
            about += " *At start.*"
        rows.append((f"`{name}`", kind, _default(field), about.strip()))
    return _table(("key", "type", "default", "meaning"), rows)


def docstrings_of(model: type) -> dict[str, str]:
    """The string below each field, of a class and of those it inherits from."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind.__module__.split(".")[0] not in ("mcpgate", "mcpgate_sandbox"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _model_of(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_model_of(part) for part in get_args(annotation) if part is not str)


def _title(model: type[BaseModel]) -> str:
    if model is KeySpec:
        return "Key"  # the same without its secret, which the gateway makes
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__.removesuffix("Config").lstrip("_"))
    return words.capitalize()


_BY_VALIDATOR = {
    "_period": "period",
    "_zone": "time zone",
    "_network": "address or network",
    "_dimension": "dimension",
    "_subject": "subject",
    "_limits": "map of limit to number",
    "_ordinary": "date or time",
}
"""What a value that a validator checks is called."""


_PLAIN = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    Decimal: "US dollars",
    SecretStr: "secret",
}


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> tuple[str, list[type[BaseModel]]]:
    """A type in words, and the models in it."""
    for part in metadata:
        if isinstance(part, (AfterValidator, BeforeValidator)) and part.func.__name__ in _BY_VALIDATOR:
            return _BY_VALIDATOR[part.func.__name__], []
    one_or_many = any(isinstance(part, BeforeValidator) and part.func.__name__ == "_one_or_many" for part in metadata)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0], parts[1:])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts), []
    if origin in (Union, types.UnionType):
        kinds = [_kind(part) for part in parts if part is not type(None)]
        return " or ".join(kind for kind, _ in kinds), [model for _, models in kinds for model in models]
    if origin is tuple:
        kind, models = _kind(parts[0])
        return (f"{kind}, or a list" if one_or_many else f"list of {_plural(kind)}"), models
    if origin is dict:
        kind, models = _kind(parts[1])
        return f"map of name to {kind}", models
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{_title(annotation)}](#{_title(annotation).lower().replace(' ', '-')})", [annotation]
    return f"{_PLAIN.get(annotation, str(annotation))}{_bounds(metadata)}", []


def _plural(kind: str) -> str:
    return f"{kind}s" if kind in ("string", "period") else kind


def _bounds(metadata: Sequence[Any]) -> str:
    said = []
    for part in metadata:
        for constraint in part if isinstance(part, annotated_types.GroupedMetadata) else [part]:
            match constraint:
                case annotated_types.Ge(ge=value):
                    said.append(f"≥ {_number(value)}")
                case annotated_types.Gt(gt=value):
                    said.append(f"> {_number(value)}")
                case annotated_types.Le(le=value):
                    said.append(f"≤ {_number(value)}")
                case FieldInfo():
                    said += [text for text in (_bounds(constraint.metadata).strip(", "),) if text]
                case _:
                    pass
    return f", {', '.join(said)}" if said else ""


def _number(value: Any) -> str:
    return f"{int(value):,}" if value == int(value) else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "defaults"
    if isinstance(value, enum.Enum):
        value = value.value
    if value in ((), {}, ""):
        return "empty"
    if isinstance(value, float):
        value = int(value) if value == int(value) else value
    if isinstance(value, Decimal):
        return f"`{value}`"
    shown = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(shown, ensure_ascii=False).strip(chr(34))}`"


# --- commands

_COMMANDS = """# Commands

`mcpgate COMMAND --help` prints the same. Results go to stdout; everything else goes to stderr.

Exit codes: 0 success, 1 failure (of a check, a run, a tool or the store), 2 wrong usage or configuration, or a file
that cannot be read or written, 130 interrupted.

| variable | meaning |
|---|---|
| `MCPGATE_CONFIG` | the configuration file, for every command |
| `MCPGATE_KEY` | the virtual key of the client that starts `mcpgate serve --stdio` |
| `MCPGATE_METADATA` | the metadata of that client, a JSON object |
"""


def commands() -> str:
    """Every command with its options."""
    top = main.parser(list(main.COMMANDS))
    rows = [(f"[`mcpgate {name}`](#mcpgate-{name})", _sentence(about)) for name, about in main.COMMANDS.items()]
    lines = [_COMMANDS, *_table(("command", "does"), rows), ""]
    for name, sub in _subparsers(top):
        lines += _command(f"mcpgate {name}", sub, _sentence(main.COMMANDS[name]), 2)
    return "\n".join(lines)


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _command(name: str, parser: argparse.ArgumentParser, about: str, level: int) -> list[str]:
    lines = [f"{'#' * level} `{name}`", "", about, ""]
    rows = []
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)) or action.help == argparse.SUPPRESS:
            continue
        rows.append((_option(action), _sentence(action.help or "")))
    lines += [*_table(("option", "meaning"), rows), ""] if rows else []
    inner = dict(_subparsers(parser))
    if parser.epilog and not inner:
        lines += ["```sh", textwrap.dedent(parser.epilog.partition("\n")[2]).strip(), "```", ""]
    if inner:
        helps = {
            choice.dest: choice.help or ""
            for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)
            for choice in action._choices_actions
        }
        for sub, its in inner.items():
            lines += _command(f"{name} {sub}", its, _sentence(helps.get(sub, "")), level + 1)
    return lines


def _option(action: argparse.Action) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    value = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        optional = action.nargs in ("?", "*")
        value = action.metavar or action.dest.upper() if not action.choices else value
        return f"`{value}{'…' if action.nargs in ('*', '+') else ''}`{' (optional)' if optional else ''}"
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return names if action.nargs == 0 else f"{names} `{value}{'…' if action.nargs in ('*', '+') else ''}`"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


# --- routes

_ROUTES = """# Routes

Where a key is required, send it as `Authorization: Bearer mg-…` or `x-api-key: mg-…` (Google's clients:
`x-goog-api-key: mg-…`, or `?key=mg-…` at `/v1beta`), or an access token of
[your identity provider](../guides/identity-provider.md) in its place.
[Keys and budgets](../guides/keys-and-budgets.md#headers) lists the headers of requests and responses.
"""
_ADMIN = """
## Admin API

Needs a key with the grant `admin`. On loopback without a key, the local caller has it. `GET /api/openapi.json` is the
OpenAPI 3.1 document of these routes; it needs no key. Bodies and answers are JSON.
"""

_PURPOSE = {
    "/dashboard": "the [dashboard](../guides/dashboard.md), and its files below it",
    "/dashboard/session": 'who is signed in to the dashboard; `POST {"key": …}` signs in, `DELETE` signs out',
    "/mcp": "MCP over streamable HTTP, in every protocol revision from 2024-11-05 to 2026-07-28. `/mcp/NAME`: a "
    "[bundle](../guides/pass-through.md)",
    "/sse": "MCP over the legacy SSE transport: the stream to the client (one worker only). `/sse/NAME`: a bundle",
    "/messages": "MCP over the legacy SSE transport: messages from the client",
    "/oauth/callback": "where authorization servers send people back to after [signing in](../guides/signing-in.md)",
    "/oauth/login/": "the page that a sign-in link leads to",
    "/v1/chat/completions": "OpenAI's [Chat Completions](../guides/models.md)",
    "/v1/responses": "OpenAI's Responses. `GET` with `Upgrade: websocket` is answered with 426",
    "/v1/responses/input_tokens": "tokens of a request: as the provider counts them, else an estimate",
    "/v1/responses/compact": "a conversation made short, by providers that speak Responses",
    "/v1/responses/{id}": "a [stored response](../guides/models.md#what-providers-keep) of this key",
    "/v1/responses/{id}/cancel": "stops it",
    "/v1/responses/{id}/input_items": "what it was asked",
    "/v1/files": "the [files](../guides/models.md#what-providers-keep) of this key; a new one",
    "/v1/files/{id}": "one of them",
    "/v1/files/{id}/content": "what is in it",
    "/v1/batches": "the [batches](../guides/models.md#batches) of this key; a new one",
    "/v1/batches/{id}": "one of them",
    "/v1/batches/{id}/cancel": "stops it, once the lines that have begun have ended",
    "/v1/messages/batches": "the same as Anthropic's clients know it",
    "/v1/messages/batches/{id}": "one of them",
    "/v1/messages/batches/{id}/cancel": "stops it, once the lines that have begun have ended",
    "/v1/messages/batches/{id}/results": "what came of its lines, once it has ended",
    "/v1/messages": "Anthropic's Messages",
    "/v1/messages/count_tokens": "tokens of a request: as the provider counts them, else an estimate",
    "/v1/embeddings": "OpenAI's Embeddings",
    "/v1/models": "the models that the key may use, in OpenAI's form, in Anthropic's with `anthropic-version`, or in "
    "Google's with `x-goog-api-key`",
    "/v1/models/": "one of them",
    "/v1beta/models": "the models that the key may use, in Google's form. `/v1beta/models/NAME`: one of them",
    "/v1alpha/models": "the same",
    "/v1beta/models/{model}:generateContent": "Gemini's generateContent. `:streamGenerateContent` streams: as "
    "server-sent events with `?alt=sse`, else as a JSON array. All of Gemini's methods are served at `/v1`, too",
    "/v1beta/models/{model}:countTokens": "tokens of a request: as the provider counts them, else an estimate",
    "/v1beta/models/{model}:embedContent": "Gemini's embeddings",
    "/v1beta/models/{model}:batchEmbedContents": "several of them",
    "/": "a short text that names the addresses of the gateway; `HEAD` for clients that probe. Needs no key",
    "/api/hello": "for clients that probe the address. Needs no key",
    "/.well-known/oauth-protected-resource": "where clients [sign in](../guides/identity-provider.md) (RFC 9728). "
    "Served while `server.oauth` is set. With `/mcp`, `/mcp/NAME` or `/sse` after it: of that address. Needs no key",
    "/healthz": "200 while the process serves. Needs no key",
    "/readyz": "200 once no upstream is starting for the first time, else 503. Needs no key",
    "/metrics": "[Metrics](metrics.md) in Prometheus format",
}


_WITH_ISSUERS = types.SimpleNamespace(
    config=types.SimpleNamespace(server=types.SimpleNamespace(oauth=True, public_url=None))
)
"""Settings of a gateway that has every route."""


def routes() -> str:
    """Every HTTP route."""
    nothing = cast(Any, types.SimpleNamespace(store=None, counters=None))
    faces = [
        (http, http.StreamableHttp(nothing, nothing, None, nothing)),
        (sse, sse.Sse(nothing, None, nothing, nothing)),
        (oauth, oauth.OAuthFace(nothing)),
        (llm_batches, llm_batches.BatchFace(nothing, nothing, nothing, nothing)),
        (llm_errors, LlmFace(nothing, nothing, nothing)),
        (llm_face, LlmFace(nothing, nothing, nothing)),
        (llm_stored, StoredFace(cast(Any, types.SimpleNamespace(objects=None)), nothing, nothing)),
        (llm_errors, GeminiFace(nothing, nothing, nothing)),
        (gemini_face, GeminiFace(nothing, nothing, nothing)),
        (dashboard, dashboard.DashboardFace(nothing, nothing, tuple)),
        (resource, resource.Resource(cast(Any, _WITH_ISSUERS), "")),
        (inspect.getmodule(Health), Health(nothing, nothing)),
    ]
    rows = []
    for module, face in faces:
        for path in _paths_in(inspect.getsource(cast(Any, module))):
            if path not in _PURPOSE and path.rstrip("/") in _PURPOSE:
                continue  # the beginning of other paths
            if handlers := cast(routing.Face, face).handler(path):
                rows.append((f"`{path}`", ", ".join(f"`{method}`" for method in handlers), _PURPOSE[path]))
    lines = [_ROUTES, *_table(("path", "methods", "purpose"), dict.fromkeys(rows)), _ADMIN]
    table = AdminFace(nothing, nothing, nothing, admin_routes(nothing))._table
    lines += _table(
        ("route", "does", "body", "status"),
        [(f"`{r.method} {r.path}`", r.summary, _body(r.body), str(r.status)) for r in table],
    )
    lines += ["", "### Query parameters", ""]
    for route in table:
        if route.query:
            given = [(f"`{name}`", about) for name, about in route.query.items()]
            lines += [f"`{route.method} {route.path}`", "", *_table(("parameter", "meaning"), given), ""]
    lines += ["### Bodies", "", "The other bodies are objects of the [settings](settings.md#objects).", ""]
    for model in dict.fromkeys(route.body for route in table if route.body is not None):
        if not model.__module__.startswith("mcpgate.config"):
            own = {name: field for name, field in model.model_fields.items() if name not in KeySpec.model_fields}
            rest = (
                f" It also has every key of [{_title(KeySpec)}](settings.md#key) but `secret`."
                if issubclass(model, KeySpec)
                else ""
            )
            described = docstrings_of(model)
            fields = [
                (f"`{name}`", _kind(field.annotation, field.metadata)[0], _default(field), described.get(name, ""))
                for name, field in own.items()
            ]
            about = f"{' '.join(_about(model)).strip()}{rest}".strip()
            lines += [f"#### {_title(model)}", "", *([about, ""] if about else [])]
            lines += [*_table(("key", "type", "default", "meaning"), fields), ""]
    return "\n".join(lines)


def _paths_in(source: str) -> list[str]:
    found = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(/[.a-z0-9_{}-]+(:\w+)?)+/?", node.value)
    ]
    return list(dict.fromkeys(found))


def _body(model: type[BaseModel] | None) -> str:
    if model is None:
        return ""
    page = "settings.md" if model.__module__.startswith("mcpgate.config") else ""
    title = _title(model)
    return f"[{title}]({page}#{title.lower().replace(' ', '-')})"


# --- errors

_ERRORS = """# Errors

Every refusal has a code and an HTTP status. Clients should rely on the code and on the data, not on the message.
"""
_FORMS = """
## Where a refusal appears

| where | form |
|---|---|
| a request to `/mcp`, `/sse` or `/messages` | the status, and a JSON-RPC error. Code and data are in `error.data` |
| other routes | the status, and `{"error": {"code": …, "message": …, …}}` |
| MCP tool call | a tool result with `isError: true`. Code and data are in `_meta["mcpgate/error"]` |
| inside `execute_code` | a catchable `ToolError`. Code and data are in its `.data` |
| other MCP requests | a JSON-RPC error. Code and data are in `error.data` |

| code | its data |
|---|---|
| `budget_exceeded` | `scope`, `budget`, `window`, `resets_at`, `limit`, `spent`, `reserved` (also as `limit_usd` …) |
| `rate_limited` | `scope`, `limit`, `window`, `retry_after_s`; if money is only reserved, those of `budget_exceeded` |
| `not_allowed` | which `key`, and where they are known the `server`, `tool`, or the `name` and `value` |
| `unknown_tool`, `not_found` | `nearest`: the nearest names, where names can be compared |
| `too_large` | `limit`, in bytes |
| `upstream_error`, `upstream_timeout` | `attempts`: for each, the `upstream` and the `reason` |

A refused tool call is a tool result because a model reads results. A 401 carries `WWW-Authenticate`, and so does a 403
for a missing scope (its data has `needed_scopes`). A 401 and a 402 carry `x-should-retry: false`, a 405 `Allow`, and a
429 `Retry-After` and `retry-after-ms`.

## Ends of an execution

Errors of the sandbox are outcomes of an execution. The model reads them as its result.

```text"""


def error_codes() -> str:
    """Every error code."""
    for package in ("api", "governance", "codemode", "upstream"):
        for module in pkgutil.walk_packages([str(Path(errors.__file__).parent / package)], f"mcpgate.{package}."):
            importlib.import_module(module.name)
    meanings = dict(re.findall(r"(\w+)\s+\(\w+, \d+\)(?:  +)?(.*)", errors.__doc__ or ""))
    kinds = sorted(set(_below(errors.McpgateError)), key=lambda kind: (kind.http_status, kind.code, kind.__name__))
    rows = []
    for kind in kinds:
        if not kind.__module__.startswith("mcpgate.") or "code" not in vars(kind):
            continue  # shown as what it inherits from
        about = meanings.get(kind.__name__) or " ".join((kind.__doc__ or "").split())
        rows.append((str(kind.http_status), f"`{kind.code}`", f"`{kind.__name__}`", _sentence(about)))
    drawing = _drawing(importlib.import_module("mcpgate_sandbox.errors").__doc__ or "")
    return "\n".join((_ERRORS, *_table(("status", "code", "class", "when"), rows), _FORMS, drawing, "```"))


def _below(kind: type[errors.McpgateError]) -> Iterator[type[errors.McpgateError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _below(sub)


def _drawing(text: str) -> str:
    return textwrap.dedent("\n".join(line for line in text.splitlines() if line.startswith("    "))).strip("\n")


# --- metrics

_METRICS = """# Metrics

`GET /metrics` answers in Prometheus format. Each process has its own metrics: with `--workers N`, a scrape reaches one
of the workers. Where keys are required, the route needs a key, except on loopback.
"""


def metrics() -> str:
    """Every metric."""
    collectors = dict.fromkeys(cast(Any, Metrics()._registry)._collector_to_names)
    rows = []
    for collector in collectors:
        kind = collector._type
        name = f"{collector._name}_total" if kind == "counter" else collector._name
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)
        rows.append((f"`{name}`", kind, labels, _sentence(collector._documentation)))
    return "\n".join((_METRICS, *_table(("metric", "type", "labels", "meaning"), rows)))


# --- the sandbox


async def sandbox() -> str:
    """Limits and modules of the sandbox, as the engines know them."""
    found = {}
    for name in ("wasm", "restricted"):
        runner = make_engine(SandboxConfig(engine=name, warm=1))
        runner.start()
        try:
            await runner.ready()
            found[name] = await runner.modules()
        finally:
            await runner.aclose()
    rows = [
        (f"`{module}`", "every public name" if listed == "*" else ", ".join(f"`{n}`" for n in sorted(listed.split())))
        for module, listed in sorted(policy.MODULES.items())
    ]
    extra = [module for module in found["restricted"][0] if module not in policy.MODULES]
    return "\n".join(
        [
            "# Sandbox modules",
            "",
            'A model reads the same with `read_docs("sandbox")`. Nothing from PyPI is available.',
            "",
            "The section [`sandbox`](settings.md#sandbox) has the limits of an execution.",
            "",
            "## Engine `wasm`",
            "",
            "CPython 3.14 with these modules of the standard library:",
            "",
            ", ".join(f"`{name}`" for name in found["wasm"][0]),
            "",
            "Not available: " + ", ".join(f"`{name}`" for name in found["wasm"][1]) + ".",
            "",
            "## Engine `restricted`",
            "",
            "The Python that mcpgate is installed with. Modules are stand-ins that hold these names only. "
            f"Also available, with a part of their names: {', '.join(f'`{name}`' for name in extra)}.",
            "",
            *_table(("module", "names"), rows),
        ]
    )


def _table(head: Sequence[str], rows: Any) -> list[str]:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in cells)]


def write() -> list[str]:
    """Write every page; says which were out of date."""
    FOLDER.mkdir(exist_ok=True)
    changed = []
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed


if __name__ == "__main__":
    print("\n".join(f"written: {name}" for name in write()) or "every page was up to date")
