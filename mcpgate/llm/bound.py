"""Requests that name what a provider keeps: whether it is the caller's own, and which provider has it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.errors import InvalidRequest, NotFound, PreviousResponseNotFound
from mcpgate.llm.asked import Asked
from mcpgate.llm.batches import OWN
from mcpgate.llm.bodies import BINDING, is_plain, mentions
from mcpgate.llm.objects import Kept, Objects, is_id
from mcpgate.telemetry.text import one_line

CONTINUING = frozenset(("responses", "input_tokens", "compact"))
"""Formats whose requests can go on with an earlier response."""
_WITH_FILES = CONTINUING | {"chat"}
_FREE = frozenset(("metadata", "text", "response_format", "functions"))
"""Fields of a request in which names are the client's own, and so are those of a tool's parameters."""
_FREE_IN_TOOLS = frozenset(("parameters", "function", "custom"))
NOT_KEPT = (
    "only responses that this key was given in the last 30 days are known, and none that were translated for a "
    "provider of another format: those are not stored"
)
_MOST_FILES = 100
_DEPTH = 40


async def bound(objects: Objects, account: str, asked: Asked) -> Asked:
    """A request, bound to the object that its provider has, if it names any. Raises NotFound for what is not the
    account's own, InvalidRequest, ObjectsUnavailable."""
    kept: list[Kept] = []
    if asked.format in CONTINUING:
        if not is_plain(asked.body, BINDING):
            asked = dataclasses.replace(asked, body=jsontext.dumps(dict(asked.parsed)))
        if asked.parsed.get("conversation") is not None:
            raise NotFound("conversations are not kept; name the previous_response_id", field="conversation")
        if (previous := asked.parsed.get("previous_response_id")) is not None:
            kept += await _found(objects, account, previous)
    if asked.format in _WITH_FILES and mentions(asked.body, b"file_id"):
        kept += await _files(objects, account, list(dict.fromkeys(_files_of(asked.parsed))))
        # Of a name that occurs twice, the provider may read the other one.
        asked = dataclasses.replace(asked, body=jsontext.dumps(dict(asked.parsed)))
    if not kept:
        return asked
    if len({(one.provider, one.key) for one in kept}) > 1:
        raise InvalidRequest("the files and the previous response of a request must be at one provider, with one key")
    return dataclasses.replace(asked, kept=kept[0])


async def _found(objects: Objects, account: str, id: Any) -> list[Kept]:
    found = await objects.find(account, "response", [id]) if is_id(id) else []
    if not found:
        raise PreviousResponseNotFound(
            f"previous response with id {one_line(str(id), 200)!r} not found: {NOT_KEPT}", field="previous_response_id"
        )
    return found[:1]


async def _files(objects: Objects, account: str, ids: list[str]) -> list[Kept]:
    if not ids:
        return []
    if len(ids) > _MOST_FILES:
        raise InvalidRequest(f"a request names {_MOST_FILES} files at most", field="file_id")
    known = {one.id: one for one in reversed(await objects.find(account, "file", [id for id in ids if is_id(id)]))}
    for id in ids:
        if id not in known:
            raise NotFound(f"no such file object: {one_line(id, 200)}", field="file_id")
        if known[id].provider == OWN:
            raise InvalidRequest(f"the file {id} is a batch's, and no provider has it", field="file_id")
    return list(known.values())


def _files_of(request: Mapping[str, Any]) -> Iterator[str]:
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            yield from _file_ids({name: one for name, one in tool.items() if name not in _FREE_IN_TOOLS}, _DEPTH)
    yield from _file_ids({name: one for name, one in request.items() if name != "tools" and name not in _FREE}, _DEPTH)


def _file_ids(value: Any, depth: int) -> Iterator[str]:
    """Every `file_id`, and what is in a `file_ids`. Raises InvalidRequest for one that is nested too deeply to see."""
    if isinstance(value, dict):
        if depth == 0:
            raise InvalidRequest("a request that names files must not be nested so deeply")
        for name, one in value.items():
            if name == "file_id" and isinstance(one, str):
                yield one
            elif name == "file_ids" and isinstance(one, list):
                yield from (id for id in one if isinstance(id, str))
            else:
                yield from _file_ids(one, depth - 1)
    elif isinstance(value, list):
        if depth == 0:
            raise InvalidRequest("a request that names files must not be nested so deeply")
        for one in value:
            yield from _file_ids(one, depth - 1)
