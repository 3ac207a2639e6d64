"""The harness of benchmarks/token_savings, over a tiny suite: real processes, real verification, a fake endpoint."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import anyio
import pytest

from benchmarks.discovery.answers import shown_tools
from benchmarks.token_savings import charts, model
from benchmarks.token_savings.catalogs import Catalogue
from benchmarks.token_savings.discovery import question, shapes_of, suffices
from benchmarks.token_savings.prices import GPT_5
from benchmarks.token_savings.report import Header, Plays, markdown
from benchmarks.token_savings.rivals import mcpgate
from benchmarks.token_savings.rivals.spelling import respell
from benchmarks.token_savings.rivals.table import RIVALS
from benchmarks.token_savings.run import Plan, run, stratified
from benchmarks.token_savings.stage import Play
from benchmarks.token_savings.task import Call
from benchmarks.token_savings.transcript import FRAME_TOKENS, Conversation, ToolCall, Usage, count_tokens, usage_of
from tests.benchmarks.fake_endpoint import INPUT_TOKENS, KEY, OUTPUT_TOKENS, fake_endpoint
from tests.benchmarks.notes_suite import NotesSuite

SUITE = NotesSuite()
NONE = Catalogue("none", {})
MANY = Catalogue(
    "many",
    {
        f"office{number}": [
            {
                "name": f"tool_{number}_{at}",
                "description": f"Does the thing number {at} of office {number}, and nothing else at all.",
                "inputSchema": {"type": "object", "properties": {"number": {"type": "integer"}}},
            }
            for at in range(20)
        ]
        for number in range(4)
    },
)


def _plan(folder: Path, rivals: Sequence[str], catalogues: Sequence[Catalogue] = (NONE, MANY)) -> Plan:
    folder.mkdir()
    tasks = {SUITE.name: SUITE.tasks()}
    chosen = [RIVALS[name] for name in rivals]
    return Plan(tasks, chosen, catalogues, "restricted", patience_s=30, side_by_side=False, folder=folder)


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> list[Play]:
    """The oracle's plays with every rival that needs no installation."""
    found: list[Play] = []
    troubles: list[str] = []
    plan = _plan(tmp_path_factory.mktemp("savings") / "run", ("classic", "parallel", "mcpgate", "bifrost"))
    anyio.run(run, plan, [SUITE], found.append, troubles.append)
    assert not troubles
    return found


def test_every_play_of_the_oracle_is_verified(plays: list[Play]) -> None:
    assert len(plays) == 3 * 4 * 2
    assert [play for play in plays if play.failure] == []


def test_a_play_that_does_something_else_is_not_verified(tmp_path: Path) -> None:
    world = SUITE.open(tmp_path / "world")
    world.begin(SUITE.tasks()[0])
    assert world.verify(SUITE.tasks()[0], ["Kept."]) == "notes are [], not ['milk']"


def test_classic_makes_a_request_for_each_call_and_one_for_each_answer(plays: list[Play]) -> None:
    requests = {play.task: play.usage.requests for play in plays if (play.rival, play.catalogue) == ("classic", "none")}
    assert requests == {"notes/one": 3, "notes/three": 5, "notes/turns": 6}


def test_parallel_calls_share_a_request(plays: list[Play]) -> None:
    requests = {
        play.task: play.usage.requests for play in plays if (play.rival, play.catalogue) == ("parallel", "none")
    }
    assert requests == {"notes/one": 3, "notes/three": 3, "notes/turns": 6}


def test_the_relay_counts_upstream_calls_inside_an_execution(plays: list[Play]) -> None:
    calls = {play.rival: play.upstream_calls for play in plays if play.task == "notes/three"}
    assert calls == {"classic": 4, "parallel": 4, "mcpgate": 4, "bifrost": 4}


def test_a_catalog_costs_classic_in_every_request_and_mcpgate_hardly_at_all(plays: list[Play]) -> None:
    inputs = {(p.rival, p.catalogue): p.usage.input_tokens for p in plays if p.task == "notes/three"}
    definitions = {(p.rival, p.catalogue): p.definitions for p in plays}
    grown = definitions["classic", "many"] - definitions["classic", "none"]
    assert grown > 3000
    assert inputs["classic", "many"] - inputs["classic", "none"] == 5 * grown
    assert inputs["mcpgate", "many"] < inputs["classic", "many"] / 4


def test_a_tool_seen_in_an_earlier_turn_is_not_looked_up_again(plays: list[Play]) -> None:
    play = next(p for p in plays if (p.rival, p.catalogue, p.task) == ("mcpgate", "many", "notes/turns"))
    assert play.answers["execute_code"][0] == 2
    assert play.answers["list_tools"][0] == 1


def test_the_report_names_the_agent_and_every_rival(plays: list[Play]) -> None:
    titles = {name: RIVALS[name].title for name in ("classic", "parallel", "mcpgate", "bifrost")}
    machine = {"date": "today", "cpu": "a cpu", "cores": 2, "python": "3"}
    header = Header("oracle", machine, titles, {"none": (0, 0), "many": (80, 4)}, GPT_5, 1.0, True, [])
    text = markdown(header, Plays(plays))
    assert "# Token savings, oracle" in text
    assert all(title in text for title in titles.values())
    assert "## Not verified" not in text
    assert "| the suite's own servers alone | 3 | 0 | 0 | 0 | 14 → 8 |" in text
    assert all(svg.startswith("<svg") for svg in charts.draw(header, Plays(plays)).values())


# Counting


def test_input_is_definitions_and_all_messages_so_far_and_the_cache_holds_what_the_request_before_sent() -> None:
    talk = Conversation("system")
    talk.user("hello")
    (id,) = talk.assistant("", [ToolCall("look", {"at": "it"})])
    talk.tool(id, "seen")
    talk.assistant("done")
    first = count_tokens("system") + count_tokens("hello") + 2 * FRAME_TOKENS
    call = count_tokens("look") + count_tokens('{"at":"it"}')
    second = first + call + 2 * FRAME_TOKENS + count_tokens("seen") + FRAME_TOKENS
    usage = usage_of(talk.requests, definitions=100)
    assert usage == Usage(2, 200 + first + second, 100 + first, call + count_tokens("done"))


def test_cached_reads_cost_a_tenth() -> None:
    usage = Usage(2, 2_000_000, 1_000_000, 100_000)
    assert GPT_5.cost_usd(usage, cached=False) == Decimal("3.50")
    assert GPT_5.cost_usd(usage, cached=True) == Decimal("2.375")


def test_the_price_is_the_published_one() -> None:
    genai_prices = pytest.importorskip("genai_prices")
    tokens = {"input_tokens": 2_000_000, "cache_read_tokens": 1_000_000, "output_tokens": 1_000_000}
    found = genai_prices.calc_price(genai_prices.Usage(**tokens), model_ref=GPT_5.model, provider_id="openai")
    assert GPT_5.cost_usd(Usage(1, 2_000_000, 1_000_000, 1_000_000), cached=True) == found.total_price


# Pure parts


def test_a_question_keeps_the_users_words_and_drops_what_is_quoted() -> None:
    assert question("Could you please move 'a.txt' into the archive folder?") == "move archive folder"


def test_a_shape_suffices_only_if_it_names_every_argument_even_inside_objects() -> None:
    (shape,) = shapes_of("s.put", "s.put(path: str, row: {name: str, age?: int}) -> str — Puts (well) a row")
    assert shape == "path: str, row: {name: str, age?: int}"
    assert suffices(shape, [Call("s", "put", {"path": "x", "row": {"age": 3}})], {})
    assert not suffices(shape, [Call("s", "put", {"path": "x", "row": {"size": 3}})], {})
    assert not suffices(shape, [Call("s", "put", {"mode": "x"})], {})


@pytest.mark.parametrize(
    ("shown", "is_shown"),
    [
        ("Run it. Servers (tools): git (12), time (2)", True),
        ("Run it. Servers: git, time … and 3 more", True),
        ("Run it. Tools by server: git: log; time: now, later", True),
        ("Run it. Servers: git … and 3 more\ntime.now() — Now.", True),
        ("Run it. Servers: git … and 3 more\nfiles.stat(path: str) — Size, time and owner.", False),
    ],
)
def test_a_server_is_known_from_the_index_or_a_tool_and_not_from_prose(
    monkeypatch: pytest.MonkeyPatch, shown: str, is_shown: bool
) -> None:
    monkeypatch.setattr(mcpgate, "_ident", lambda stage, server: server)
    assert mcpgate.IDIOM.server_shown
    assert mcpgate.IDIOM.server_shown(None, "time", shown) is is_shown  # type: ignore[arg-type]


def test_a_shortened_listing_is_read_with_the_servers_name() -> None:
    text = "notes: 2 tools, called as notes.NAME(…)\nadd(text: str)\nclear() -> T1\nT1 = {left: int}"
    assert mcpgate.IDIOM.spelt_out(text).splitlines()[1:3] == ["notes.add(text: str)", "notes.clear() -> T1"]
    assert mcpgate.IDIOM.spelt_out("notes.add(text: str)") == "notes.add(text: str)"


def test_tools_that_are_shown_by_name_only_are_read_with_their_server() -> None:
    names = "by name (describe_tools shows shapes, limit=… more): "
    ranked = f"mail.send(to: str)\n{names}notes: add, clear; mail: list"
    assert shown_tools(ranked) == {"mail.send", "notes.add", "notes.clear", "mail.list"}
    whole = f"notes: 9 tools, called as notes.NAME(…)\nadd(text: str)\n{names}clear, find"
    assert shown_tools(whole) == {"notes.add", "notes.clear", "notes.find"}


def test_a_sample_holds_every_difficulty() -> None:
    assert {task.difficulty for task in stratified(SUITE.tasks(), 2)} == {"1 call", "2-4 calls"}


def test_a_slow_rival_plays_a_sample_and_the_others_everything(tmp_path: Path) -> None:
    plan = _plan(tmp_path / "run", ("classic", "mcpgate", "fastmcp"))
    tasks = [replace(task, id=f"{task.id}/{number}") for task in SUITE.tasks() for number in range(20)]
    plan = replace(plan, tasks={SUITE.name: tasks})
    played = {rival.name: plan.tasks_of(rival, SUITE.name) for rival in plan.rivals}
    assert played["classic"] == played["mcpgate"] == tasks
    assert len(played["fastmcp"]) == 12 and {task.difficulty for task in played["fastmcp"]} == {"1 call", "2-4 calls"}
    assert plan.plays == 2 * (60 + 60 + 12)


def test_programs_are_respelt_with_awaits_and_parsed_results() -> None:
    import ast

    tools = {("notes", "add_note"): ("notes", "add-note", {"text": "text"})}
    call = lambda server, tool, arguments: ast.Call(ast.Name("call", ast.Load()), [ast.Constant(tool)], arguments)  # noqa: E731
    code = "x = notes.add_note('a')\na, b = await asyncio.gather(notes.add_note(text='b'), notes.add_note(text='c'))\nx"
    assert respell(code, tools, {("notes", "add-note"): "json"}, call).splitlines() == [
        "import json",
        "x = json.loads(await call('add-note', text='a'))",
        "a, b = (json.loads(await call('add-note', text='b')), json.loads(await call('add-note', text='c')))",
        "x",
    ]


# A model


def _play_with_a_model(
    folder: Path, dialect: model.Dialect, rival: str, max_usd: str = "1"
) -> tuple[list[Play], str, int]:
    """The plays, why it ended early, and how many requests the endpoint got."""
    found: list[Play] = []
    tasks = SUITE.tasks()
    with fake_endpoint(tasks) as fake:
        url = fake.url if isinstance(dialect, model.Anthropic) else f"{fake.url}/v1"
        endpoint = model.Endpoint("fake", url, dialect, GPT_5, Decimal(max_usd), key=KEY)
        plan = _plan(folder / "run", [rival], [MANY])
        journal = model.Journal(folder / "journal.jsonl")
        trouble = anyio.run(model.run, plan, [SUITE], endpoint, journal, found.append)
        return found, trouble, len(fake.bodies)


@pytest.mark.parametrize("dialect", [model.OpenAI(), model.Anthropic()], ids=["openai", "anthropic"])
@pytest.mark.parametrize(("rival", "requests"), [("classic", [3, 5, 6]), ("mcpgate", [2, 2, 4])])
def test_a_model_plays_over_the_wire_and_the_world_verifies_it(
    tmp_path: Path, dialect: model.Dialect, rival: str, requests: list[int]
) -> None:
    found, trouble, asked = _play_with_a_model(tmp_path, dialect, rival)
    assert not trouble
    assert [play.failure for play in found] == ["", "", ""]
    assert [play.usage.requests for play in found] == requests
    assert asked == sum(requests)
    assert found[0].usage.input_tokens == requests[0] * INPUT_TOKENS
    assert found[0].usage.output_tokens == requests[0] * OUTPUT_TOKENS


def test_a_run_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    first, trouble, asked = _play_with_a_model(tmp_path, model.OpenAI(), "classic", max_usd="0.0055")
    assert "are spent" in trouble
    assert [play.task for play in first] == ["notes/one"]
    assert asked <= 6
    (tmp_path / "run").rename(tmp_path / "old")
    second, trouble, asked = _play_with_a_model(tmp_path, model.OpenAI(), "classic")
    assert not trouble
    assert [play.task for play in second] == ["notes/one", "notes/three", "notes/turns"]
    assert asked == 5 + 6
