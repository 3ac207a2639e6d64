"""Everything of MCP goes through: resources, prompts, completion, log messages and questions, from servers of either era
to the SDK's client in either era, for direct calls and for calls made in code."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client

from tests.conftest import full, until
from tests.flows.clients import connected, http_gateway, sse_client, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")]

CLIENT_ERAS = ("legacy", "2026-07-28")
SERVER_ERAS = ("handshake", "modern", "both")
PAIRS = [(client, server) for client in CLIENT_ERAS for server in SERVER_ERAS]
each_pair = pytest.mark.parametrize(("mode", "era"), PAIRS, ids=[f"{c}-{s}" for c, s in PAIRS])
WAYS = [("stdio", "legacy"), ("stdio", "2026-07-28"), ("http", "legacy"), ("http", "2026-07-28"), ("sse", "legacy")]
each_way = pytest.mark.parametrize(("transport", "mode"), WAYS, ids=[f"{t}-{m}" for t, m in WAYS])
ADA = {"action": "accept", "content": {"name": "Ada"}}


async def elicit(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult.model_validate(ADA)


async def sample(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="hm"), model="m")


async def roots(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///home/ada")])


ASKABLE: dict[str, Any] = {
    "elicitation_callback": elicit,
    "sampling_callback": sample,
    "list_roots_callback": roots,
}


async def names_of_tools(client: Client, *wanted: str) -> None:
    async with asyncio.timeout(30):
        while not {*wanted} <= {tool.name for tool in (await client.list_tools()).tools}:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def opened(
    config: Path, tmp_path: Path, transport: str, mode: str, tool: str, **options: Any
) -> AsyncIterator[Client]:
    """A client of a gateway whose servers have started."""
    async with connected(transport, mode, config, tmp_path, **options) as client:
        await names_of_tools(client, tool)
        yield client


@each_pair
async def test_a_server_of_any_era_asks_a_client_of_any_era(
    mode: str, era: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({"full": full("one", era)})
    async with opened(config, tmp_path, "http", mode, "full__ask", **ASKABLE) as client:
        for name, expected in (("ask", "Ada"), ("think", "hm"), ("roots", "file:///home/ada")):
            result = await client.call_tool(f"full__{name}", {})
            assert expected in text_of(result), name
        twice = json.loads(text_of(await client.call_tool("full__twice", {})))
        assert twice["answers"][-1]["content"]["name"] == "Ada"
        both = text_of(await client.call_tool("full__both", {}))
        assert "Ada" in both and "hm" in both
        inside = await client.call_tool("execute_code", {"code": "full.ask()['answers'][0]['content']['name']"})
        assert text_of(inside) == "Ada"


@each_pair
async def test_what_a_person_has_said_is_not_kept_for_others(
    mode: str, era: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    names = iter(["Ada", "Bob", "Cleo"])

    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": next(names)})

    config = config_file({"full": full("one", era, cache={"tools": ["*"], "scope": "shared"})})
    async with opened(config, tmp_path, "http", mode, "full__ask", elicitation_callback=answer) as client:
        said = [text_of(await client.call_tool("full__ask", {})) for _ in range(2)]
        said.append(text_of(await client.call_tool("execute_code", {"code": "full.ask()"})))
    assert all(name in text for name, text in zip(("Ada", "Bob", "Cleo"), said, strict=True)), said


@each_way
async def test_questions_arrive_over_every_transport(
    transport: str, mode: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({"full": full("one")})
    async with opened(config, tmp_path, transport, mode, "full__ask", **ASKABLE) as client:
        assert "Ada" in text_of(await client.call_tool("full__ask", {}))
        assert "Ada" in text_of(await client.call_tool("execute_code", {"code": "full.ask()"}))


@each_pair
async def test_a_client_that_cannot_be_asked_is_a_clear_error_and_never_an_empty_success(
    mode: str, era: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({"full": full("one", era)})
    async with opened(config, tmp_path, "http", mode, "full__ask") as client:
        for name, arguments in (("full__ask", {}), ("execute_code", {"code": "full.ask()"})):
            try:
                said = text_of(await client.call_tool(name, arguments))
            except MCPError as error:
                said = error.error.message
            assert "elicitation" in said, name
            assert "not support" in said or "not supported" in said or "capabilit" in said.lower(), said


@each_way
async def test_resources_and_prompts_of_three_servers_are_the_gateways_own(
    transport: str, mode: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    servers = {"one": full("one", expose="direct"), "two": full("two", "handshake"), "three": full("three", "modern")}
    servers["hidden"] = full("hidden", expose="code")
    async with opened(config_file(servers), tmp_path, transport, mode, "three__log") as client:
        await names_of_tools(client, "one__log", "two__log")
        listed = {resource.uri: resource for resource in (await client.list_resources()).resources}
        assert "note://hidden" not in listed
        shared = [uri for uri in listed if uri.startswith("note://shared")]
        assert shared == ["note://shared", "note://shared#server=three", "note://shared#server=two"]
        for uri, name in zip(shared, ("one", "three", "two"), strict=True):
            (content,) = (await client.read_resource(uri)).contents
            assert content.uri == uri and content.text == f"note://shared of {name}" and content.meta == {"kept": True}
        assert (await client.read_resource("note://two")).contents[0].text == "note://two of two"
        assert listed["ui://three/page"].meta == {"ui": {"csp": {}}}
        templates = {template.uri_template for template in (await client.list_resource_templates()).resource_templates}
        assert templates == {f"file:///{name}/{{path}}" for name in ("one", "two", "three")}
        (blob,) = (await client.read_resource("file:///two/a/b")).contents
        assert base64.b64decode(blob.blob) == b"\x00\x01\x02\xff"
        with pytest.raises(MCPError) as missing:
            await client.read_resource("note://nowhere")
        assert missing.value.error.code == (-32002 if mode == "legacy" else -32602)
        with pytest.raises(MCPError, match="there is no prompt 'nope'") as unknown:
            await client.get_prompt("nope")
        assert unknown.value.error.code == -32602

        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert prompts == ["greet", "only_one", "three__greet", "only_three", "two__greet", "only_two"]
        for name, who in (("greet", "one"), ("two__greet", "two"), ("three__greet", "three")):
            (message,) = (await client.get_prompt(name, {"who": "Ada"})).messages
            assert message.content.text == f"{who} greets Ada"
        with pytest.raises(MCPError, match="did you mean"):
            await client.get_prompt("gret")

        argument = {"name": "who", "value": "A"}
        prompt = types.PromptReference(type="ref/prompt", name="two__greet")
        assert (await client.complete(prompt, argument)).completion.values == ["two: greet"]
        template = types.ResourceTemplateReference(type="ref/resource", uri="file:///three/{path}")
        assert (await client.complete(template, argument)).completion.values == ["three: file:///three/{path}"]


@each_pair
async def test_log_messages_of_a_call_reach_its_client(
    mode: str, era: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    heard: list[Any] = []

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params)

    config = config_file({"full": full("one", era)})
    async with opened(config, tmp_path, "http", mode, "full__log", logging_callback=on_log) as client:
        if mode == "legacy":
            await client.set_logging_level("warning")
            await client.call_tool("full__log", {})
        else:
            await client.call_tool("full__log", {}, meta={"io.modelcontextprotocol/logLevel": "warning"})
        await until(lambda: heard)
        assert (heard[0].level, heard[0].data, heard[0].logger) == ("warning", "mind the gap", "one")


async def test_what_tools_logged_is_shown_when_code_fails(config_file: Callable[..., Path], tmp_path: Path) -> None:
    config = config_file({"full": full("one", "handshake")})
    async with opened(config, tmp_path, "http", "legacy", "full__log") as client:
        failed = await client.call_tool("execute_code", {"code": "full.log()\n1 / 0"})
        assert failed.is_error and "ZeroDivisionError" in text_of(failed)
        assert text_of(failed).endswith("Meanwhile, tools logged:\none warning: mind the gap")
        assert text_of(await client.call_tool("execute_code", {"code": "full.log()"})) == "logged"


@pytest.mark.parametrize("era", SERVER_ERAS)
async def test_changes_reach_sessions_and_subscriptions(
    era: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    heard: list[str] = []

    async def on_message(message: Any) -> None:
        heard.append(type(message).__name__)

    config = config_file({"other": full("other", era), "full": full("one", era)})
    async with http_gateway(config, tmp_path / "log") as address:
        async with Client(f"{address}/mcp", mode="legacy", cache=None, message_handler=on_message) as client:
            await names_of_tools(client, "full__touch", "other__touch")
            await client.list_resources()
            await client.subscribe_resource("note://shared#server=full")
            await client.call_tool("full__touch", {})
            await until(lambda: "ResourceUpdatedNotification" in heard)
            await client.unsubscribe_resource("note://shared#server=full")
            await client.call_tool("full__grow", {})
            await until(lambda: {"ResourceListChangedNotification", "PromptListChangedNotification"} <= {*heard})
            assert "note://one/0" in {resource.uri for resource in (await client.list_resources()).resources}
        async with Client(f"{address}/mcp", mode="2026-07-28", cache=None) as client:
            async with client.listen(resources_list_changed=True, resource_subscriptions=["note://one"]) as events:
                await client.call_tool("full__touch", {})
                await client.call_tool("full__grow", {})
                kinds = set()
                async with asyncio.timeout(10):
                    async for event in events:
                        kinds.add(type(event).__name__)
                        if len(kinds) == 2:
                            break
                assert kinds == {"ResourceUpdated", "ResourcesListChanged"}


@pytest.mark.parametrize("era", SERVER_ERAS)
@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_a_client_whose_roots_change_is_asked_for_them_by_servers_that_are_told(
    transport: str, era: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    now = ["file:///first"]

    async def current(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=uri) for uri in now])

    config = config_file({"full": full("full", era)})
    async with opened(config, tmp_path, transport, "legacy", "full__roots", list_roots_callback=current) as client:

        async def told() -> Any:
            return json.loads(text_of(await client.call_tool("full__told_roots", {})))["roots"]

        assert "file:///first" in text_of(await client.call_tool("full__roots", {}))
        now[:] = ["file:///second", "file:///third"]
        for _ in range(5):
            await client.send_roots_list_changed()
        if era != "modern":  # where servers ask whenever they need to know
            async with asyncio.timeout(30):
                # A question that falls into a call is that call's, and may be lost at its end: the change is said again.
                while not await told():
                    await asyncio.sleep(1.5)
                    await client.send_roots_list_changed()
        heard = await told()
        assert bool(heard) == (era != "modern") and all(roots == now for roots in heard)
        assert "file:///third" in text_of(await client.call_tool("full__roots", {}))


async def changes_heard(http: httpx2.AsyncClient, address: str) -> int:
    asked = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "full__told_roots"}}
    answer = (await http.post(f"{address}/mcp", json=asked)).json()
    changes: int = json.loads(answer["result"]["content"][0]["text"])["changes"]
    return changes


async def test_a_flood_of_changed_roots_is_a_few_for_the_server(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    opened = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": {"name": "x"}}
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opened}
    change = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
    async with http_gateway(config_file({"full": full("full", "handshake")}), tmp_path / "log") as address:
        async with Client(f"{address}/mcp", mode="legacy", cache=None) as client:
            await names_of_tools(client, "full__told_roots")
        async with httpx2.AsyncClient(timeout=30) as http:
            sessions = [(await http.post(f"{address}/mcp", json=begin)).headers["mcp-session-id"] for _ in range(20)]
            began = time.monotonic()
            for session in sessions:
                batch = await http.post(f"{address}/mcp", json=[change] * 1000, headers={"mcp-session-id": session})
                assert batch.status_code == 202
            async with asyncio.timeout(10):
                while not (changes := await changes_heard(http, address)):
                    await asyncio.sleep(0.05)
        assert changes <= 2 + time.monotonic() - began


async def test_a_client_that_is_gone_is_not_asked_for_its_roots(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    async def current(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///ada")])

    async with http_gateway(config_file({"full": full("full", "handshake")}), tmp_path / "log") as address:
        async with Client(f"{address}/mcp", mode="legacy", cache=None, list_roots_callback=current) as ada:
            await names_of_tools(ada, "full__grow")
            await ada.send_roots_list_changed()
            async with asyncio.timeout(10):
                while "ada" not in text_of(await ada.call_tool("full__told_roots", {})):
                    await asyncio.sleep(0.05)
        async with Client(f"{address}/mcp", mode="legacy", cache=None) as bob:
            await bob.call_tool("full__hear_roots", {})
            async with asyncio.timeout(10):
                while (said := json.loads(text_of(await bob.call_tool("full__told_roots", {}))))["roots"][1:] == []:
                    await asyncio.sleep(0.05)
            assert said["roots"] == [["file:///ada"], []]


@pytest.mark.parametrize("mode", CLIENT_ERAS)
async def test_a_bundle_is_a_server_of_its_own(mode: str, config_file: Callable[..., Path], tmp_path: Path) -> None:
    bundles = {
        "pure": {"servers": ["one"], "expose": "direct", "meta_tools": False},
        "some": {"servers": ["t*"], "expose": "code", "tools": {"allow": ["log", "three.ask"]}},
    }
    servers = {"one": full("one", prefix=""), "two": full("two"), "three": full("three")}
    config = config_file(servers, bundles=bundles)
    async with http_gateway(config, tmp_path / "log") as address:
        async with Client(f"{address}/mcp/pure", mode=mode, cache=None) as client:
            await names_of_tools(client, "log")
            assert {tool.name for tool in (await client.list_tools()).tools} >= {"ask", "log", "which_era"}
            assert not {"execute_code", "two__log"} & {tool.name for tool in (await client.list_tools()).tools}
            assert {r.uri for r in (await client.list_resources()).resources} >= {"note://shared", "note://one"}
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool("execute_code", {"code": "1"})
            with pytest.raises(MCPError):
                await client.read_resource("note://two")
        async with Client(f"{address}/mcp/some", mode=mode, cache=None) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["list_tools", "describe_tools", "read_docs", "execute_code"]
            code = "[[n for n in dir(s) if n in ('log', 'ask', 'touch')] for s in (two, three)] + ['one' in globals()]"
            assert text_of(await client.call_tool("execute_code", {"code": code})) == '[["log"],["ask","log"],false]'
        if mode == "legacy":
            async with Client(sse_client(f"{address}/sse/pure"), mode=mode, cache=None) as client:
                assert "log" in {tool.name for tool in (await client.list_tools()).tools}
        async with httpx2.AsyncClient() as http:
            answer = await http.post(f"{address}/mcp/pur", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
            assert answer.status_code == 404 and "did you mean pure?" in answer.text


@pytest.mark.parametrize("mode", CLIENT_ERAS)
async def test_a_person_has_to_allow_some_calls(mode: str, config_file: Callable[..., Path], tmp_path: Path) -> None:
    asked: list[str] = []

    async def decide(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept" if "log" in params.message else "decline")

    servers = {"full": full("one", approve=["lo*", "touch"]), "other": full("other", approve_destructive=True)}
    config = config_file(servers)
    async with opened(config, tmp_path, "http", mode, "full__log", elicitation_callback=decide) as client:
        await names_of_tools(client, "other__log")
        assert text_of(await client.call_tool("full__log", {"deep": 1})) == "logged"
        assert asked == ['Allow the call full.log({"deep":1})?']
        refused = await client.call_tool("full__touch", {})
        assert refused.is_error and "nobody approved" in text_of(refused)
        code = "try:\n    full.touch()\nexcept ToolError as error:\n    print(error.data['code'], full.log())"
        assert text_of(await client.call_tool("execute_code", {"code": code})) == "not_allowed logged"
        asked.clear()
        await client.call_tool("full__which_era", {})
        await client.call_tool("other__which_era", {})
        assert asked == []
        await client.call_tool("other__log", {})
        assert asked == ["Allow the call other.log({})?"]
    (tmp_path / "mute").mkdir()
    async with opened(config, tmp_path / "mute", "http", mode, "full__log") as client:
        refused = await client.call_tool("full__log", {})
        assert refused.is_error and "needs a person's approval" in text_of(refused)


async def test_code_reads_resources_and_prompts(config_file: Callable[..., Path], tmp_path: Path) -> None:
    async with opened(config_file({"full": full("one")}), tmp_path, "http", "legacy", "full__log") as client:

        async def run(code: str) -> str:
            return text_of(await client.call_tool("execute_code", {"code": code}))

        assert await run("[r.get('uri') or r['uriTemplate'] for r in full.resources()][-1]") == "file:///one/{path}"
        assert await run("full.read_resource('note://one')") == "note://one of one"
        assert await run("list(full.read_resource(uri='file:///one/x').bytes())") == "[0,1,2,255]"
        assert await run("[p['name'] for p in full.prompts()]") == '["greet","only_one"]'
        assert await run("full.get_prompt('greet', who='Ada')[0]['content']") == "one greets Ada"
        both = "await asyncio.gather(full.read_resource('note://one'), full.read_resource('note://shared'))"
        assert await run(both) == '["note://one of one","note://shared of one"]'
        failing = "try:\n    full.read_resource('no:where')\nexcept ToolError as error:\n    print(error.message)"
        assert await run(failing) == "there is no no:where"
        assert "takes no arguments" in await run("full.prompts(1)")


async def test_a_key_reaches_its_bundle_and_nothing_else(config_file: Callable[..., Path], tmp_path: Path) -> None:
    keys = {"k": {"secret": "mg-of-the-bundle", "grants": {"tools": ["*"]}, "bundle": "pure"}}
    bundles = {"pure": {"servers": ["one"], "expose": "direct", "meta_tools": False}, "other": {"servers": ["two"]}}
    config = config_file({"one": full("one"), "two": full("two")}, bundles=bundles, governance={"keys": keys})
    async with http_gateway(config, tmp_path / "log") as address:
        headers = {"authorization": "Bearer mg-of-the-bundle", "accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient(headers=headers, base_url=address) as http:
            listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            async with asyncio.timeout(20):
                while not (tools := (await http.post("/mcp", json=listing)).json()["result"]["tools"]):
                    await asyncio.sleep(0.05)
            assert {tool["name"].partition("__")[0] for tool in tools} == {"one"}
            assert (await http.post("/mcp/pure", json=listing)).json()["result"]["tools"] == tools
            assert (await http.post("/mcp/other", json=listing)).status_code == 403


@pytest.mark.parametrize("mode", CLIENT_ERAS)
@pytest.mark.parametrize("engine", ["wasm", "restricted"])
async def test_code_asks_the_person_and_tells_its_progress(
    mode: str, engine: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    asked: list[Any] = []
    heard: list[str] = []

    async def answer(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params.model_dump(by_alias=True)["requestedSchema"])
        if "declined" in params.message:
            return types.ElicitResult(action="decline")
        return types.ElicitResult(action="accept", content={"size": "M", "note": "gift"})

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    code = """
progress("halfway")
order = elicit("Which one?", {"size": ["S", "M"], "note": "string"})
return [order, elicit("Delete?"), elicit("This will be declined", {"x": "integer"}), await elicit("Sure?")]
"""
    config = config_file({}, sandbox={"engine": engine})
    async with connected("http", mode, config, tmp_path, elicitation_callback=answer) as client:
        result = await client.call_tool("execute_code", {"code": code}, progress_callback=progress)
        assert json.loads(text_of(result)) == [{"size": "M", "note": "gift"}, True, None, True]
        assert asked[0] == {
            "type": "object",
            "properties": {"size": {"type": "string", "enum": ["S", "M"]}, "note": {"type": "string"}},
            "required": ["size", "note"],
        }
        assert heard[0] == "halfway"
        wrong = await client.call_tool("execute_code", {"code": "elicit('Which?', {'size': 3})"})
        assert wrong.is_error and "'size' must be one of string, number, integer, boolean" in text_of(wrong)
        shown = await client.call_tool("execute_code", {"code": "help(elicit)"})
        assert text_of(shown).startswith("elicit(message: str")


async def test_code_cannot_ask_a_client_that_has_no_person(config_file: Callable[..., Path], tmp_path: Path) -> None:
    async with connected("stdio", "legacy", config_file({}), tmp_path) as client:
        code = "try:\n    elicit('Which one?')\nexcept ToolError as error:\n    print(error, error.data['code'])"
        said = text_of(await client.call_tool("execute_code", {"code": code}))
        assert said == "the client of this request does not support elicitation not_supported"
        own = "def elicit(text):\n    return text\nprogress = 3\nelicit('mine'), progress"
        assert text_of(await client.call_tool("execute_code", {"code": own})) == '["mine",3]'


@pytest.mark.parametrize("code", ["full.log()\n1 / 0", "full.log()"])
async def test_what_tools_log_is_shown_when_the_code_fails(
    code: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({"full": full("one", "handshake", expose="both")})
    async with opened(config, tmp_path, "stdio", "legacy", "full__log") as client:
        await client.set_logging_level("info")
        answer = text_of(await client.call_tool("execute_code", {"code": code}))
        assert ("Tools logged meanwhile:\nwarning: one: mind the gap" in answer) == ("1 / 0" in code)


async def test_a_server_that_was_connected_before_delays_no_client(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    config = config_file({"full": full("one", env={"WAIT_FOR": str(go)})})
    go.touch()
    async with opened(config, tmp_path, "stdio", "legacy", "full__ask") as client:
        before = client.server_capabilities
        for listing in (client.list_resources, client.list_resource_templates, client.list_prompts):
            await listing()
    go.unlink()
    heard: list[str] = []

    async def on_message(message: Any) -> None:
        heard.append(type(message).__name__)

    async with connected("stdio", "legacy", config, tmp_path, message_handler=on_message) as client:
        assert client.server_capabilities == before and before.resources is not None
        assert "full__ask" in [tool.name for tool in (await client.list_tools()).tools]
        assert len((await client.list_resources()).resources) == 3
        assert len((await client.list_resource_templates()).resource_templates) == 1
        assert len((await client.list_prompts()).prompts) == 2
        reading = asyncio.ensure_future(client.read_resource("note://one"))  # this asks the server itself
        go.touch()
        assert "of one" in str(await reading)
        await until(lambda: {"ResourceListChangedNotification", "PromptListChangedNotification"} <= {*heard})
