"""Reads the configuration file: finds it, parses it, and explains its errors. Files of agents are read in
cli/clients.py."""

import difflib
import json
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import platformdirs
import yaml
from pydantic import BaseModel, ValidationError

from mcpgate.config import jsonc
from mcpgate.config.environment import interpolate, missing_variables
from mcpgate.config.settings import Config
from mcpgate.config.upstreams import UpstreamConfig, is_disabled
from mcpgate.errors import ConfigError

FILE_NAMES = ("mcpgate.yaml", "mcpgate.yml", "mcpgate.json")


class NoConfig(ConfigError):
    """No configuration file was found, and none was named."""


def find_config(path: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file to use: `path`, else $MCPGATE_CONFIG, else mcpgate.yaml here, else in the user's config folder.
    Raises ConfigError, which says where it looked."""
    chosen = path or environ.get("MCPGATE_CONFIG")
    if chosen:
        file = Path(chosen).expanduser()
        if not file.is_file():
            raise ConfigError(f"configuration file {file} does not exist; `mcpgate import` can write one")
        return file
    folders = (Path.cwd(), user_config_folder())
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise NoConfig(
        f"no configuration found: looked for {FILE_NAMES[0]} in {' and '.join(str(f) for f in folders)}. "
        "Name one with -c FILE, or let `mcpgate import` write it from the agents you already use."
    )


def user_config_folder() -> Path:
    return Path(platformdirs.user_config_dir("mcpgate"))


def user_data_folder() -> Path:
    return Path(platformdirs.user_data_dir("mcpgate"))


def load_config(path: Path, environ: Mapping[str, str] = os.environ, tolerant: bool = False) -> Config:
    """Read, interpolate and validate one file. With `tolerant`, an error in one server's entry makes only that server
    unusable. Raises ConfigError, which says what is wrong, where, and how to fix it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_config(text, str(path), environ, tolerant)


def needed_variables(path: Path) -> list[str]:
    """The variables without a default that a file names, whether they are set or not; those of servers that are
    switched off are not needed. Raises ConfigError."""
    try:
        data = _sections(path.read_text(encoding="utf-8"), str(path))
        servers = data.get("mcpServers")
        if isinstance(servers, dict):
            data["mcpServers"] = [entry for entry in servers.values() if not is_disabled(entry)]
        return missing_variables(data, {})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: an alias contains itself") from None


def parse_config(
    text: str, source: str = "config", environ: Mapping[str, str] = os.environ, tolerant: bool = False
) -> Config:
    """Parse YAML, or JSON with or without comments; see `load_config`. Raises ConfigError."""
    data = _sections(text, source)
    servers = data.get("mcpServers")
    broken: dict[str, UpstreamConfig] = {}
    if tolerant and isinstance(servers, dict):
        entries = {name: _entry_or_trouble(str(name), entry, environ) for name, entry in servers.items()}
        broken = {name: UpstreamConfig.broken(entry) for name, entry in entries.items() if isinstance(entry, str)}
        data["mcpServers"] = {name: _STAND_IN if name in broken else entry for name, entry in servers.items()}
    try:
        data = interpolate(data, "", source, environ)
    except RecursionError:
        raise ConfigError(f"{source}: an alias contains itself") from None
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_explain(e)}" for e in error.errors())) from None
    return config.model_copy(update={"mcpServers": {**config.mcpServers, **broken}}) if broken else config


_STAND_IN = {"command": "unusable"}
"""Validated in place of an unusable entry, so that the entry's name is still checked."""


def _enumerated(names: Sequence[str]) -> str:
    """`A`; `A and B`; `A, B and C`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _entry_or_trouble(name: str, entry: Any, environ: Mapping[str, str]) -> UpstreamConfig | str:
    """One server's settings, or what is wrong with them."""
    if not is_disabled(entry) and (missing := missing_variables(entry, environ)):
        return f"{_enumerated(missing)} {'is' if len(missing) == 1 else 'are'} not set"
    try:
        return UpstreamConfig.model_validate(interpolate(entry, f"mcpServers.{name}", "", environ))
    except ValidationError as error:
        faults = [{**fault, "loc": ("mcpServers", name, *fault["loc"])} for fault in error.errors()]
        return "; ".join(_explain(fault) for fault in faults)
    except (ConfigError, RecursionError) as error:
        return str(error) or "nested too deeply"


def _sections(text: str, source: str) -> dict[str, Any]:
    """The sections of a file that this version supports, before variables are filled in. Raises ConfigError."""
    data = parse(text, source)
    if "mcpServers" not in data and "servers" in data:
        data["mcpServers"] = data.pop("servers")  # VS Code's name for it
    return data


def parse(text: str, source: str = "config") -> dict[str, Any]:
    """A file as plain data: before variables are filled in, and whether its settings exist or not. Numbers in `env`,
    `headers` and `args` of servers are text, spelled as in the file. Raises ConfigError if it is no mapping, or has a
    duplicate key."""
    try:
        data = _parse(text)
    except _Twice as error:
        raise ConfigError(f"{source}: {error}") from None
    except yaml.MarkedYAMLError as error:
        # Never shows the line itself, which may hold a secret.
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}: not valid YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must be a mapping with keys such as `mcpServers`, not a {type(data).__name__}")
    return data


def _parse(text: str) -> Any:
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith(("{", "//", "/*")):
        for read in (str, jsonc.strip):
            try:
                # YAML reads most JSON, but not tabs and not characters written as two \\u escapes.
                return _as_text(json.loads(read(text), object_pairs_hook=_unique, parse_float=jsonc.Spelled))
            except json.JSONDecodeError:
                pass
    loader = _OurYaml(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _keep_spellings(node, ())
    return loader.construct_document(node)


_TEXTS = ("env", "headers", "args")
"""Keys of a server whose values are text, however much they look like numbers."""


def _as_text(data: Any) -> Any:
    """Data of a JSON file, with text instead of numbers where text is meant."""

    def text(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: text(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [text(inner) for inner in value]
        return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    for section in ("mcpServers", "servers"):
        servers = data.get(section) if isinstance(data, dict) else None
        for entry in servers.values() if isinstance(servers, dict) else ():
            if isinstance(entry, dict):
                entry.update({key: text(entry[key]) for key in _TEXTS if key in entry})
    return data


_SPELLED_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))


def _keep_spellings(node: yaml.Node, path: tuple[str, ...]) -> None:
    """Turn numbers into text where text is meant: in `env`, `headers` and `args` of a server, where YAML's 1.10, 0755
    and 12:30 are versions, modes and times."""
    if isinstance(node, yaml.ScalarNode):
        if len(path) > 3 and node.tag in _SPELLED_TAGS:
            node.tag = "tag:yaml.org,2002:str"
    elif len(path) >= 3 and (path[0] not in ("mcpServers", "servers") or path[2] not in _TEXTS):
        return
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _keep_spellings(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _keep_spellings(value, (*path, "*"))


class _Twice(ValueError):
    """A duplicate key, which would silently lose a value."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise _Twice(f"duplicate key {twice!r}")
    return dict(pairs)


class _OurYaml(yaml.SafeLoader):
    """Rejects duplicate keys, and takes every key as text: a server may be called `on`, a user `007`."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise _Twice(f"duplicate key {key.value!r} in line {key.start_mark.line + 1}")
                seen.add(key.value)
                key.tag = "tag:yaml.org,2002:str"
        return node


_MAY_HOLD_SECRETS = frozenset(("secret", "keys", "headers", "env", "args", "storage", "client_secret", "private_key"))
"""Settings whose values are never shown in errors."""


_KINDS = {
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "dict_type": "must be a mapping of names to values",
    "mapping_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "missing": "is missing",
}
"""What pydantic's errors mean in a file, by their type."""


def said_of(error: Any) -> str:
    """What one of pydantic's errors says of its place in a file."""
    message: str = _KINDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    return message.replace("Input should be", "must be")


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "top level"
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1, 0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"unknown key `{where}`; {hint}"
    message = said_of(error)
    shown = None if _MAY_HOLD_SECRETS.intersection(error["loc"]) else error["input"]
    value = f" (it is {shown!r})" if isinstance(shown, (str, int, float, bool)) and len(str(shown)) < 80 else ""
    return f"{where}: {message}{value}. See servers.example.yaml."


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Config
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
        elif get_origin(model) is dict:
            model = get_args(model)[1]
        elif get_origin(model) is tuple:
            model = get_args(model)[0]
        if get_origin(model) is types.UnionType:  # a section that may be left out
            model = get_args(model)[0]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
