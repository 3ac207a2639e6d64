"""Every engine behind the gateway: chosen by settings, and the same for the model except for what its page says."""

from typing import Any

import pytest

from mcpgate.errors import ConfigError
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from tests.conftest import gateway, raw

pytestmark = pytest.mark.anyio

ENGINES: dict[str, dict[str, Any]] = {
    "wasm": {"engine": "wasm"},
    "wasm in child processes": {"engine": "wasm", "isolation": "process"},
    "restricted": {"engine": "restricted"},
}


@pytest.mark.parametrize("name", ENGINES)
async def test_a_task_runs_the_same_on_every_engine(name: str) -> None:
    async with gateway({"raw": raw()}, sandbox={**ENGINES[name], "warm": 1}) as opened:
        code = """
class Total:
    def __init__(self):
        self.sum = 0
    def add(self, n):
        self.sum += n
total = Total()
for answer in await asyncio.gather(*[raw.add(a=i, b=1) for i in range(5)]):
    total.add(answer["sum"])
print(f"{total.sum:>4}")
total.sum"""
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), code)).text == "  15\n15"
        wrong = await opened.metatools.execute_code(RequestContext(LOCAL), "raw.add(a='x', b=1)")
        assert wrong.is_error and "add(a: int, b: int)" in wrong.text
        await opened.metatools.execute_code(RequestContext(LOCAL), "kept = raw.picture()", session="s")
        shown = await opened.metatools.execute_code(RequestContext(LOCAL), "kept", session="s")
        assert [block["type"] for block in shown.blocks] == ["image"]


@pytest.mark.parametrize(("name", "said"), [("wasm", "WebAssembly"), ("restricted", "RestrictedPython")])
async def test_the_sandbox_page_tells_which_engine_it_is_and_where_it_differs(name: str, said: str) -> None:
    async with gateway({"raw": raw()}, sandbox={"engine": name, "warm": 1}) as opened:
        page = await opened.metatools.read_docs(RequestContext(LOCAL), "sandbox")
        assert said in page and "tool_wait_s=300" in page and "max_depth=200" in page
        assert ("except*" in page) == (name == "restricted")


async def test_a_caller_may_have_limits_of_its_own() -> None:
    key = {"secret": "mg-tight-enough", "grants": {"tools": "*"}, "limits": {"max_tool_calls": 1}}
    async with gateway({"raw": raw()}, governance={"keys": {"tight": key}}) as opened:
        tight = await opened.gate.identify("mg-tight-enough", key_required=True)
        code = "raw.add(a=1, b=1)\nraw.add(a=1, b=2)\n'done'"
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), code)).text == "done"
        refused = await opened.metatools.execute_code(RequestContext(tight), code)
        assert refused.is_error and "max_tool_calls" in refused.text


async def test_an_engine_that_does_not_exist_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="must be 'wasm', 'restricted' or an import string"):
        async with gateway({"raw": raw()}, sandbox={"engine": "docker"}):
            pass
