"""A guest that lies: whatever it sends, the host stays whole and says clearly what was wrong."""

import asyncio
import json
from typing import Any

import pytest

from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.errors import CodeFailed, LimitReached
from sandbox.tests.conftest import Host, Run

pytestmark = pytest.mark.anyio

SHORT = Limits(timeout_s=5, cpu_s=5)


# --- calls

VIOLATIONS = {
    "an id in use": "wit_world.submit(1, 't.never', '[[],{}]'); wit_world.submit(1, 't.never', '[[],{}]')",
    "an id in use, for a refused call": (
        "wit_world.submit(1, 't.never', '[[],{}]'); wit_world.submit(1, 't.echo', ' ' * 20_000_000)"
    ),
    "id zero": "wit_world.submit(0, 't.echo', '[[],{}]')",
    "cancelling a word": "wit_world.call('@cancel', 'x')",
    "cancelling a negative id": "wit_world.call('@cancel', '-1')",
    "cancelling nothing": "wit_world.call('@cancel', '')",
    "cancelling a number without end": "wit_world.call('@cancel', '9' * 100_000)",
    "cancelling in other digits": "wit_world.call('@cancel', '²')",
}


@pytest.mark.parametrize("code", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_a_broken_rule_of_the_protocol_ends_the_execution(code: str, run: Run) -> None:
    host = Host()
    outcome = await run(f"import wit_world\n{code}\nprint('still here')", host=host, limits=SHORT)
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "protocol"
    assert outcome.error.message.startswith("the execution was ended: a call ")
    assert outcome.stdout == ""
    if host.calls:
        await asyncio.wait_for(host.idle.wait(), 5)
    assert host.cancelled == ["t.never"] * len(host.calls)
    assert (await run("1 + 1")).result == 2


@pytest.mark.parametrize("number", ["2**32", "-1", "'1'", "None", "1.5"])
async def test_an_invalid_id_fails_in_the_guest(number: str, run: Run) -> None:
    host = Host()
    outcome = await run(f"import wit_world\nwit_world.submit({number}, 't.echo', '[[],{{}}]')", host=host, limits=SHORT)
    assert outcome.error is not None
    assert host.calls == []


@pytest.mark.parametrize("id", ["5", "4294967295", "0"])
async def test_cancelling_a_call_that_does_not_exist_does_nothing(id: str, run: Run) -> None:
    outcome = await run(f"import wit_world\n[wit_world.call('@cancel', {id!r}), t.echo(1)]")
    assert outcome.result == ["+null", 1]


ARGUMENTS = [
    "",
    "nope",
    "{}",
    "[]",
    "[1,2]",
    "[[],[]]",
    "[{},{}]",
    "[[],{},1]",
    "null",
    "NaN",
    "[[" * 50_000,
    '[[1],{"a"',
    "\x00",
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=[text[:10] or "nothing" for text in ARGUMENTS])
async def test_arguments_that_are_none_are_refused_before_the_tool(arguments: str, run: Run) -> None:
    host = Host()
    code = f"""
import wit_world
answers = [wit_world.call(name, {arguments!r}) for name in ("t.echo", "@tools", "@load")]
wit_world.submit(1, "t.echo", {arguments!r})
frame = wit_world.poll(-1)
[[json.loads(answer[1:])["kind"] for answer in answers], frame.startswith("1:"), "arguments" in frame]
"""
    outcome = await run(code, host=host, limits=SHORT)
    assert (outcome.error, outcome.result) == (None, [["arguments"] * 3, True, True])
    assert host.calls == []


NAMES = [
    "",
    ".",
    "..",
    "t",
    "t.",
    ".echo",
    "t.echo.x",
    "t.echo ",
    "T.echo",
    "\x00",
    "t.__class__",
    "é" * 1000,
    "t.\udc80",
    "x" * 10**5,
]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:14] for name in NAMES])
async def test_a_tool_name_of_any_kind_is_only_a_name(name: str, run: Run) -> None:
    host = Host()
    code = f"""
import wit_world
name = {name!r}.encode("utf-8", "replace").decode()
first = wit_world.call(name, "[[],{{}}]")
wit_world.submit(1, name, "[[],{{}}]")
[first[:1], "there is no tool" in first, "there is no tool" in wit_world.poll(-1)]
"""
    outcome = await run(code, host=host, limits=SHORT)
    assert (outcome.error, outcome.result) == (None, ["-", True, True])
    assert host.finished == []


async def test_submit_reaches_no_helper_of_the_host(run: Run) -> None:
    host = Host()
    host.kept["r1"] = "kept"
    outcome = await run(
        "import wit_world\nwit_world.submit(1, '@load', '[[\"r1\"],{}]')\nwit_world.poll(-1)", host=host
    )
    assert "there is no tool @load" in outcome.result


@pytest.mark.parametrize("name", ["@", "@nope", "@load.x", "@@load", "@cancel ", "@bytes"])
async def test_an_unknown_helper_is_refused(name: str, run: Run) -> None:
    outcome = await run(f"import wit_world\nwit_world.call({name!r}, '[[\"r1\"],{{}}]')")
    assert outcome.error is None
    assert outcome.result.startswith("-")


async def test_calls_past_the_stubs_count_like_any_other(run: Run) -> None:
    host = Host()
    code = "import wit_world\n[wit_world.call('t.echo', '[[1],{}]')[:1] for _ in range(6)]"
    outcome = await run(code, host=host, limits=Limits(max_tool_calls=4))
    assert outcome.result == ["+"] * 4 + ["-"] * 2
    assert len(host.calls) == 4


async def test_answers_wait_for_a_guest_that_never_polls(run: Run) -> None:
    host = Host()
    code = "import wit_world\nfor i in range(1, 50):\n    wit_world.submit(i, 't.echo', '[[1],{}]')\n'left'"
    assert (await run(code, host=host)).result == "left"
    await asyncio.wait_for(host.idle.wait(), 5) if host.calls else None


@pytest.mark.parametrize("timeout_ms", ["-1", "-(2**63)", "2**63 - 1", "10**12"])
async def test_waiting_for_nothing_ends_at_the_time_limit(timeout_ms: str, run: Run) -> None:
    async with asyncio.timeout(5):
        outcome = await run(f"import wit_world\nwit_world.poll({timeout_ms})", limits=Limits(timeout_s=0.2))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "timeout_s"


async def test_a_poll_for_no_time_comes_back_with_nothing(run: Run) -> None:
    assert (await run("import wit_world\nwit_world.poll(0)")).result == ""


# --- output


async def test_output_to_any_descriptor_is_stdout_or_stderr(run: Run) -> None:
    code = "import wit_world\nfor fd in (0, 1, 2, 3, 255):\n    wit_world.emit(fd, f'<{fd}>')\nwit_world.emit(1, '')"
    outcome = await run(code)
    assert (outcome.stdout, outcome.stderr, outcome.error) == ("<1>", "<0><2><3><255>", None)


async def test_a_giant_piece_of_output_is_cut_at_the_limit(run: Run) -> None:
    outcome = await run("import wit_world\nwit_world.emit(1, 'x' * 50_000_000)", limits=Limits(max_output_chars=1_000))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "max_output_chars"
    assert outcome.stdout == "x" * 1_000


async def test_terminal_controls_and_nulls_arrive_as_they_are(run: Run) -> None:
    assert (await run("print('\\x1b[31m\\x00\\r', end='')")).stdout == "\x1b[31m\x00\r"


# --- forged outcomes: the guest's `run` is replaced, and the session's next execution is answered by the forger

FORGED: dict[str, tuple[str, Any, str | None]] = {
    "no JSON": ("nope", None, "protocol"),
    "nothing": ("", None, "protocol"),
    "half of it": ('{"result": [1, 2', None, "protocol"),
    "a list": ("[1]", None, "protocol"),
    "a string": ('"x"', None, "protocol"),
    "null": ("null", None, "protocol"),
    "NaN": ("NaN", None, "protocol"),
    "nesting without end": ('{"result": ' + "[" * 100_000 + "]" * 100_000 + "}", None, "protocol"),
    "an integer without end": ('{"result": ' + "9" * 100_000 + "}", None, "protocol"),
    "a float without end": ('{"result": 1e999999}', float("inf"), None),
    "two results": ('{"result": 1, "result": 2}', 2, None),
    "an error that is none": ('{"error": "x", "result": 1}', 1, None),
    "a handle that does not exist": (
        '{"result": {"$handle": {"id": "../../etc/passwd"}}}',
        {"$handle": {"id": "../../etc/passwd"}},
        None,
    ),
    "an empty error": ('{"error": {}}', None, "Error"),
    "an error of wrong types": (
        '{"error": {"type": 5, "message": [1], "traceback": {}, "line": "x", "name": 1, "server": [], "tool": null}}',
        None,
        "Error",
    ),
    "a result beside an error": ('{"error": {"type": "E", "message": "m"}, "result": 1}', None, "E"),
    "a message without end": (
        json.dumps({"error": {"type": "T" * 300_000, "message": "m" * 300_000}}),
        None,
        "T" * 100,
    ),
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_outcome_is_believed_in_nothing_but_its_form(name: str, run: Run) -> None:
    envelope, result, error = FORGED[name]
    session = f"forged {name}"
    await run(
        f"import mcpgate_guest.program as p\nforged = {envelope!r}\np.run = lambda code, opts: forged", session=session
    )
    outcome = await run("1 + 1", session=session)
    assert outcome.result == result
    if error is None:
        assert outcome.error is None
    elif error == "protocol":
        expected = "max_depth" if name == "nesting without end" else "protocol"
        assert isinstance(outcome.error, LimitReached) and outcome.error.limit == expected
    else:
        assert isinstance(outcome.error, CodeFailed) and outcome.error.type == error
        assert len(outcome.error.message) <= 20_000
        assert outcome.error.line is None


async def test_a_forged_outcome_over_the_limit_is_refused(run: Run) -> None:
    forge = "import mcpgate_guest.program as p\np.run = lambda code, opts: '{\"result\": \"' + 'x' * 5_000 + '\"}'"
    await run(forge, session="giant")
    outcome = await run("1", session="giant", limits=Limits(max_result_chars=1_000))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "max_result_chars"


@pytest.mark.parametrize("forged", ["5", "None", "b'x'", "1 / 0", "exit()", "[]", "'\\ud800'"])
async def test_an_outcome_that_is_not_text_ends_the_session_with_an_error(forged: str, run: Run) -> None:
    session = f"no text {forged}"
    await run(f"import mcpgate_guest.program as p\np.run = lambda code, opts: {forged}", session=session)
    outcome = await run("1 + 1", session=session)
    assert isinstance(outcome.error, LimitReached)
    assert "its variables are gone" in outcome.notes[-1]
    assert (await run("1 + 1", session=session)).result == 2


BROKEN = {
    "its encoder": "import mcpgate_guest.wire as w\nw.encode_result = lambda value: '}{'",
    "its encoder, with a number": "import mcpgate_guest.wire as w\nw.encode_result = lambda value: 5",
    "json": "json.dumps = json.loads = json.JSONEncoder.encode = None\n1 / 0",
    "its error report": "import mcpgate_guest.program as p\np._report = lambda *a: {1, 2}\n1 / 0",
    "its streams": "import mcpgate_guest.program as p\np._stdout.flush = None\nprint('x')",
    "its calls": "import mcpgate_guest.calls as c\nc.drain = lambda: 5",
    "its loop": "import mcpgate_guest.eventloop as e\ne.pump = lambda t: True\ne.Loop._run_once = None\nawait asyncio.sleep(0)",
    "wit_world": "import wit_world\nwit_world.call = wit_world.poll = wit_world.emit = None\nt.echo(1)",
    "the waiting list": "import mcpgate_guest.calls as c\nc._waiting = None\nawait t.echo(1)",
    "its namespace": "import mcpgate_guest.program as p\np._namespace.clear()\np._namespace = None",
    "everything at hand": (
        "import sys, gc\nfor m in list(sys.modules.values()):\n    if m is not sys:\n        getattr(m, '__dict__', {}).clear()"
    ),
}


@pytest.mark.parametrize("code", BROKEN.values(), ids=BROKEN.keys())
async def test_a_guest_that_breaks_its_own_runtime_harms_only_itself(code: str, run: Run) -> None:
    async with asyncio.timeout(10):
        outcome = await run(f"{code}\n1", limits=Limits(timeout_s=2, cpu_s=2))
    assert outcome.error is None or isinstance(outcome.error, (LimitReached, CodeFailed))
    assert outcome.result in (1, None)
    after = await run("print('fine')\nawait t.add(1, 2)")
    assert (after.result, after.stdout, after.error) == (3, "fine\n", None)


async def test_an_error_class_named_like_a_limit_is_still_the_codes_error(run: Run) -> None:
    error = (await run("class LimitReached(Exception): pass\nraise LimitReached('cpu_s')")).error
    assert isinstance(error, CodeFailed) and error.type == "LimitReached"


# --- what the host's tools send


UNSENDABLE = {
    "object": object(),
    "set": {1, 2},
    "bytes": b"x",
    "tuple as a key": {(1, 2): 3},
    "object in a list": [object()],
    "complex": 1j,
}


@pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE)
async def test_a_value_that_the_host_cannot_send_is_a_tool_error(value: Any, run: Run) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    async def odd() -> Any:
        return value

    outcome = await run("try:\n    r = t.odd()\nexcept ToolError as e:\n    r = str(e)\nr", {"t.odd": odd})
    assert outcome.error is None
    assert outcome.result.startswith("t.odd: the gateway failed: TypeError")


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("a\ud800", "a?"),
        (["a\ud800"], ["a?"]),
        ([2**64, -(2**70)], [2**64, -(2**70)]),
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
        ([float("nan")], [None]),
        ('"+*-', '"+*-'),
        ({"$handle": "no dict"}, {"$handle": "no dict"}),
        ("x\n1:2 3:4\n", "x\n1:2 3:4\n"),
        ("", ""),
    ],
    ids=ascii,
)
async def test_a_value_of_a_tool_arrives_whatever_is_in_it(sent: Any, found: Any, run: Run) -> None:
    async def give() -> Any:
        return sent

    for code in ("t.give()", "await t.give()", "(await asyncio.gather(t.give(), t.echo('é'), t.give()))[2]"):
        assert (await run(code, {"t.give": give}, limits=SHORT)).result == found
