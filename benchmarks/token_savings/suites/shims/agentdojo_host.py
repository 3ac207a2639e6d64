# mypy: ignore-errors
"""AgentDojo v1.2.2: the tools of its four suites, one server each, their environments, and its 97 user tasks.

    python agentdojo_host.py       (in the venv that has agentdojo; see host.py for the protocol)

A task is judged by its own `utility()`, or `utility_from_traces()` where it has one, with the assistant's last text and
the environments before and after, as in the package's task suite. Five banking tasks pass if nothing was done; for
those, the tools of the ground truth must also have been called. There are no injections.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

from host import serve
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python


def _leave_out_agents() -> None:
    """Replaces modules that import five model SDKs by empty ones; suites, tools and checkers need none of them."""
    package = Path(importlib.util.find_spec("agentdojo").origin).parent
    pipeline = types.ModuleType("agentdojo.agent_pipeline")
    pipeline.__path__ = [str(package / "agent_pipeline")]
    execution = types.ModuleType("agentdojo.agent_pipeline.tool_execution")
    execution.tool_result_to_str = str
    sys.modules |= {module.__name__: module for module in (pipeline, execution)}


_leave_out_agents()

from agentdojo.functions_runtime import Function, FunctionCall, FunctionsRuntime  # noqa: E402
from agentdojo.task_suite.load_suites import get_suites  # noqa: E402

_VERSION = "v1.2.2"


class AgentDojoBox:
    def __init__(self) -> None:
        self._suites = get_suites(_VERSION)
        self._catalog = {name: [_to_tool(tool) for tool in suite.tools] for name, suite in self._suites.items()}
        self._runtimes = {name: FunctionsRuntime(suite.tools) for name, suite in self._suites.items()}
        self._pristine = {name: suite.load_and_inject_default_environment({}) for name, suite in self._suites.items()}
        self._suite_name = ""
        self._task: Any = None
        self._before: Any = None
        self._environment: Any = None
        self._calls: list[FunctionCall] = []

    def catalog(self) -> dict[str, list[dict[str, Any]]]:
        return self._catalog

    def tasks(self) -> list[dict[str, Any]]:
        tasks = [
            self._trace(f"{name}/{task_id}") for name, suite in self._suites.items() for task_id in suite.user_tasks
        ]
        calls = [call for task in tasks for turn in task["turns"] for call in turn["calls"]]
        writers = {(call["server"], call["tool"]) for call in calls if call["writes"]}
        for call in calls:
            call["writes"] = (call["server"], call["tool"]) in writers
        return tasks

    def begin(self, task_id: str) -> None:
        self._suite_name, _, name = task_id.partition("/")
        self._task = self._suites[self._suite_name].get_user_task_by_id(name)
        self._environment = self._task.init_environment(self._pristine[self._suite_name].model_copy(deep=True))
        self._before = self._environment.model_copy(deep=True)
        self._calls = []

    def call(self, server: str, tool: str, arguments: dict[str, Any]) -> Any:
        if server != self._suite_name:
            raise LookupError(f"{server} has no data in this task")
        self._calls.append(FunctionCall(function=tool, args=arguments))
        value, error = self._runtimes[server].run_function(self._environment, tool, arguments)
        if error:
            raise RuntimeError(error)
        return to_jsonable_python(value)

    def verify(self, answers: list[str]) -> str:
        said = answers[-1] if answers else ""
        if not self._judge(said, self._environment, self._calls):
            return f"utility() is false; the assistant said {said!r}"
        if self._judge("", self._before, []):
            wanted = {call.function for call in self._task.ground_truth(self._before)}
            if missing := wanted - {call.function for call in self._calls}:
                return f"never called {', '.join(sorted(missing))}"
        return ""

    def _judge(self, said: str, environment: Any, calls: list[FunctionCall]) -> bool:
        judged = self._task.utility_from_traces(said, self._before, environment, calls)
        return self._task.utility(said, self._before, environment) if judged is None else judged

    def _trace(self, task_id: str) -> dict[str, Any]:
        self.begin(task_id)
        task = self._task
        calls = [self._trace_call(call) for call in task.ground_truth(self._environment)]
        turn = {"user": task.PROMPT, "calls": calls, "answer": task.GROUND_TRUTH_OUTPUT or "Done."}
        tags = [f"agentdojo_{self._suite_name}"]
        return {"id": task_id, "difficulty": task.DIFFICULTY.name.lower(), "tags": tags, "turns": [turn]}

    def _trace_call(self, call: FunctionCall) -> dict[str, Any]:
        before = self._environment.model_dump_json()
        arguments = _to_plain(call.args)
        value = self.call(self._suite_name, call.function, arguments)
        return {
            "server": self._suite_name,
            "tool": call.function,
            "arguments": arguments,
            "value": value,
            "writes": self._environment.model_dump_json() != before,
            "commutes": True,  # Each creates, changes or sends a separate thing.
        }


def _to_plain(arguments: Any) -> dict[str, Any]:
    return json.loads(json.dumps(to_jsonable_python(dict(arguments))))


def _to_tool(tool: Function) -> dict[str, Any]:
    schema = tool.parameters.model_json_schema()
    del schema["title"]
    for property_schema in schema["properties"].values():
        property_schema.pop("title", None)
    made = {"name": tool.name, "description": tool.description, "inputSchema": schema}
    if tool.return_type in (None, types.NoneType):
        return made
    return {**made, "outputSchema": _to_output(tool.return_type)}


def _to_output(kind: Any) -> dict[str, Any]:
    """Models become objects unchanged; all else is wrapped as the Python SDK does it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_json_schema(mode="serialization")
    inner = TypeAdapter(kind).json_schema(mode="serialization")
    definitions = inner.pop("$defs", None)
    return {
        "type": "object",
        "properties": {"result": inner},
        "required": ["result"],
        "x-fastmcp-wrap-result": True,
        **({"$defs": definitions} if definitions else {}),
    }


if __name__ == "__main__":
    serve(AgentDojoBox())
