# mypy: ignore-errors
"""BFCL v4 multi-turn, base and long_context: its eight API classes, their state, its tasks and its two checkers.

    python bfcl_host.py            (in the venv that has bfcl-eval; see host.py for the protocol)

A task is judged by the package's `state_checker` on the end state, and by its `response_checker` on all tool answers
since the task began: without the second, a task that only reads would pass by doing nothing. The package
checks both after every turn; here both are checked once, at the end, over all turns.
"""

import ast
import copy
import importlib
import inspect
import json
import random
from pathlib import Path
from typing import Any

import bfcl_eval
import mpmath
from bfcl_eval.constants.executable_backend_config import (
    CLASS_FILE_PATH_MAPPING,
    MULTI_TURN_FUNC_DOC_FILE_MAPPING,
    STATELESS_CLASSES,
)
from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import response_checker, state_checker
from host import serve

_DATA = Path(bfcl_eval.__file__).parent / "data"
_CATEGORIES = ("multi_turn_base", "multi_turn_long_context")
_CLASSES = (
    "GorillaFileSystem",
    "MathAPI",
    "MessageAPI",
    "TwitterAPI",
    "TicketAPI",
    "TradingBot",
    "TravelAPI",
    "VehicleControlAPI",
)
_UNLIKE_THEIR_DOCS = {
    "activateParkingBrake",
    "check_tire_pressure",
    "displayCarStatus",
    "get_outside_temperature_from_google",
    "get_stock_info",
    "get_ticket",
    "get_watchlist",
    "list_all_airports",
    "send_message",
}
"""Tools whose answers differ from their documentation: no output is declared for them."""
_MENDED_ARGUMENTS = {"close_ticket": {"ticket_id": ["integer", "string"]}}
"""Parameters for which the ground truth uses a type that the documentation excludes."""
_JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


class BfclBox:
    def __init__(self) -> None:
        self._class_of = {MULTI_TURN_FUNC_DOC_FILE_MAPPING[name].removesuffix(".json"): name for name in _CLASSES}
        self._catalog = {server: [_to_tool(doc) for doc in _read_docs(server)] for server in self._class_of}
        self._server_of = {tool["name"]: server for server, tools in self._catalog.items() for tool in tools}
        self._entries = {entry["id"]: entry for category in _CATEGORIES for entry in _read_entries(category)}
        self._defaults = [
            (method, copy.deepcopy(method.__defaults__))
            for name in _CLASSES
            for method in vars(_find_class(name)).values()
            if inspect.isfunction(method)
        ]
        self._entry: dict[str, Any] = {}
        self._live: dict[str, Any] = {}
        """Server → the instance that its tools work on."""
        self._answered: list[str] = []

    def catalog(self) -> dict[str, list[dict[str, Any]]]:
        return self._catalog

    def tasks(self) -> list[dict[str, Any]]:
        tasks = [self._trace(task_id) for task_id in self._entries]
        calls = [call for task in tasks for turn in task["turns"] for call in turn["calls"]]
        writers = {call["tool"] for call in calls if call["writes"]}
        for call in calls:
            call["writes"] = call["tool"] in writers  # Even if this one call changed nothing.
        return tasks

    def begin(self, task_id: str) -> None:
        entry = self._entries[task_id]
        self._entry, self._answered = entry, []
        self._forget()
        self._live = {}
        for server, name in self._class_of.items():
            instance = _find_class(name)()
            if name not in STATELESS_CLASSES:
                config = copy.deepcopy(entry["initial_config"].get(name, {}))
                instance._load_scenario(config, long_context="long_context" in task_id)
            self._live[server] = instance

    def call(self, server: str, tool: str, arguments: dict[str, Any]) -> Any:
        value = getattr(self._live[server], tool)(**copy.deepcopy(arguments))  # Some keep and change their arguments.
        self._answered.append(_to_answer(value))
        return json.loads(json.dumps(value, default=_to_json))

    def verify(self, answers: list[str]) -> str:
        turns, instances = self._run_truth()
        live = {self._class_of[server]: instance for server, instance in self._live.items()}
        for verdict in (
            state_checker(live, instances),
            response_checker(self._answered, [answer for turn in turns for answer in turn], len(turns) - 1),
        ):
            if not verdict["valid"]:
                details = {key: verdict["details"].get(key) for key in ("differences", "missing_items")}
                return f"{verdict['error_message']} {str(details)[:2000]}"
        return ""

    def _run_truth(self) -> tuple[list[list[str]], dict[str, Any]]:
        """The ground truth, played by the package itself: the answers of each turn's calls, and the end state."""
        entry = self._entry
        self._forget()
        turns, instances = [], {}
        for calls in entry["ground_truth"]:
            answers, instances = multi_turn_utils.execute_multi_turn_func_call(
                func_call_list=calls,
                initial_config=entry["initial_config"],
                involved_classes=entry["involved_classes"],
                model_name="truth",
                test_entry_id=entry["id"],
                long_context="long_context" in entry["id"],
            )
            turns.append(answers)
        for name in [name for name in vars(multi_turn_utils) if name.startswith("truth_")]:
            delattr(multi_turn_utils, name)  # The package keeps instances in its globals, and would reuse them.
        return turns, instances

    def _forget(self) -> None:
        """Resets defaults: some methods change a list that is their default, which would outlive the task."""
        for method, defaults in self._defaults:
            method.__defaults__ = copy.deepcopy(defaults)

    def _trace(self, task_id: str) -> dict[str, Any]:
        self.begin(task_id)
        entry = self._entry
        turns = []
        for messages, calls in zip(entry["question"], entry["ground_truth"], strict=True):
            user = "\n".join(message["content"] for message in messages)
            turns.append({"user": user, "calls": [self._trace_call(text) for text in calls], "answer": ""})
        return {"id": task_id, "difficulty": "", "tags": [task_id.rpartition("_")[0]], "turns": turns}

    def _trace_call(self, text: str) -> dict[str, Any]:
        node = ast.parse(text, mode="eval").body
        server = self._server_of[node.func.id]
        names = list(inspect.signature(getattr(self._live[server], node.func.id)).parameters)
        arguments = dict(zip(names, map(ast.literal_eval, node.args), strict=False))
        arguments |= {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        before = _fingerprint(self._live[server])
        value = self.call(server, node.func.id, arguments)
        return {
            "server": server,
            "tool": node.func.id,
            "arguments": arguments,
            "value": value,
            "writes": _fingerprint(self._live[server]) != before,
            "commutes": False,  # There is a working directory, and ids are random numbers in order.
        }


def _find_class(name: str) -> type:
    return getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)


def _read_docs(server: str) -> list[dict[str, Any]]:
    return _read_lines(_DATA / "multi_turn_func_doc" / f"{server}.json")


def _read_entries(category: str) -> list[dict[str, Any]]:
    truths = _read_lines(_DATA / "possible_answer" / f"BFCL_v4_{category}.json")
    by_id = {truth["id"]: truth["ground_truth"] for truth in truths}
    return [{**entry, "ground_truth": by_id[entry["id"]]} for entry in _read_lines(_DATA / f"BFCL_v4_{category}.json")]


def _read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _to_tool(doc: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": doc["name"], "description": doc["description"], "inputSchema": _to_schema(doc["parameters"])}
    for argument, kind in _MENDED_ARGUMENTS.get(doc["name"], {}).items():
        tool["inputSchema"]["properties"][argument]["type"] = kind
    output = _to_schema(doc["response"])
    # A lone `result` would be mistaken for a plain value wrapped by an SDK.
    if doc["name"] not in _UNLIKE_THEIR_DOCS and list(output["properties"]) not in ([], ["result"]):
        tool["outputSchema"] = output
    return tool


def _to_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with JSON Schema's type names: the package writes Python's."""
    made = {**schema, "type": _JSON_TYPES.get(schema["type"], schema["type"])}
    if "properties" in schema:
        made["properties"] = {name: _to_schema(inner) for name, inner in schema["properties"].items()}
    if "items" in schema:
        made["items"] = _to_schema(schema["items"])
    return made


def _to_json(value: Any) -> Any:
    """A value as JSON: the math tools return mpmath numbers, and one of the long stock lists contains an Ellipsis."""
    return float(value) if isinstance(value, mpmath.mpf) else str(value)


def _to_answer(value: Any) -> str:
    """A tool's value as the package serializes it for comparison."""
    if isinstance(value, dict):
        try:
            return json.dumps(value)
        except TypeError:
            return str(value)
    return value if isinstance(value, str) else str(value)


def _fingerprint(instance: Any) -> str:
    """Whether a call changed the state, including what the package's own checker ignores: the working directory and
    the random numbers to come."""
    parts = []
    for name, value in sorted(vars(instance).items()):
        if isinstance(value, random.Random):
            parts.append(str(hash(value.getstate())))
        elif name == "_current_dir":
            parts.append(str(id(value)))
        elif name != "_flight_cost_lookup":
            parts.append(repr(value))
    return "\n".join(parts)


if __name__ == "__main__":
    serve(BfclBox())
