"""Whether the schemas of tools are valid JSON Schema. The gateway itself tolerates those that are not (see
catalog/arguments), but clients and model APIs may refuse a whole request because of one such tool."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MOST_S = 5.0
_MOST_CHARS = 200_000
"""Of one schema. Checking a longer one might take too long, and cannot be interrupted."""


def invalid_schemas(
    tools: Sequence[Mapping[str, Any]], most_s: float = _MOST_S, clock: Callable[[], float] = time.monotonic
) -> tuple[list[str], int]:
    """`tool: place: what is wrong`, one line for each invalid schema; and how many schemas there was no time for."""
    import jsonschema  # takes 100 ms or more, which only a check should pay

    found, unchecked, deadline = [], 0, clock() + most_s
    for tool in tools:
        for key in ("inputSchema", "outputSchema"):
            schema = tool.get(key)
            if not isinstance(schema, Mapping):
                continue
            if clock() > deadline or len(json.dumps(schema)) > _MOST_CHARS:
                unchecked += 1
                continue
            # MCP: a schema that does not say otherwise is one of 2020-12.
            kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
            try:
                error = jsonschema.exceptions.best_match(kind(kind.META_SCHEMA).iter_errors(schema))
            except RecursionError:
                unchecked += 1
                continue
            if error is not None:
                place = ".".join(map(str, (key, *error.absolute_path)))
                found.append(f"{tool.get('name')}: {place}: {error.message}")
    return found, unchecked
