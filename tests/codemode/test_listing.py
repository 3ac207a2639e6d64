from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.codemode.listing import Listing
from mcpgate.config.settings import CodeModeConfig
from mcpgate.tokens import count
from tests.catalog.work import work_of


def catalog(servers: dict[str, list[dict[str, Any]]]) -> Catalog:
    return Catalog.build([ServerListing(name, tools) for name, tools in servers.items()])


def noting(number: int, prefix: str = "note") -> list[dict[str, Any]]:
    taking = {"type": "object", "properties": {"title": {"type": "string"}, "body": {"type": "string"}}}
    return [
        {"name": f"{prefix}_{at}", "description": f"Keeps one note in drawer {at}.", "inputSchema": taking}
        for at in range(number)
    ]


def answer(of: Catalog, query: str | None, server: str | None = None, limit: int | None = None, **config: Any) -> str:
    return Listing(CodeModeConfig(**config), lambda tool: None).render(of, query, server, limit)


MANY = catalog({"desk": noting(40), "shelf": noting(40, "notebook_page")})


def test_a_search_shows_the_best_by_shape_the_next_by_a_short_one_and_the_rest_by_name() -> None:
    *lines, names = answer(MANY, "keep a note").splitlines()
    assert len(lines) == 4
    assert lines[0] == "desk.note_0(title: str = ..., body: str = ...) — Keeps one note in drawer 0."
    assert lines[3].startswith("desk.note_3(") and "—" not in lines[3]
    assert names.startswith("by name (describe_tools shows shapes, limit=… more): desk: note_4, note_5, ")


def test_a_search_that_finds_few_tools_shows_them_all_by_shape() -> None:
    lines = answer(catalog({"desk": noting(5)}), "keep a note").splitlines()
    assert [line.endswith(f"drawer {at}.") for at, line in enumerate(lines)] == [True] * 5


def test_names_are_grouped_by_server_in_the_order_of_their_rank() -> None:
    some = catalog({"desk": noting(30), "shelf": noting(1, "notebook_page"), "wall": noting(1, "pinboard_note")})
    names = answer(some, "keep a note", list_tokens=320).splitlines()[-1]
    assert names.count("desk: ") == names.count("wall: ") == 1
    assert names.endswith("note_29; wall: pinboard_note_0; shelf: notebook_page_0")


def test_room_that_names_leave_is_used_for_shapes() -> None:
    lines = answer(catalog({"desk": noting(13)}), "keep a note", list_tokens=240).splitlines()
    assert sum(line.endswith(".") for line in lines) > 3
    assert lines[-1].endswith("note_12")


def test_a_question_about_a_large_server_names_its_other_tools_without_the_server() -> None:
    head, first, *_, names = answer(MANY, "note in drawer 31", "desk").splitlines()
    assert head == "desk: 40 tools, called as desk.NAME(…)"
    assert first.startswith("note_31(")
    assert "desk" not in names and "note_30, note_32" in names


def test_a_limit_shows_so_many_tools_and_no_more() -> None:
    few = answer(MANY, "keep a note", limit=2).splitlines()
    assert len(few) == 3 and few[-1] == "(limit=… or a narrower query shows more)"
    more = answer(MANY, "keep a note", limit=20).splitlines()
    assert len(more) == 21 and more[-2].startswith("desk.note_19(title: str")


def test_a_limit_of_a_thousand_takes_work_in_proportion() -> None:
    prefix = "a_note_with_a_very_long_name_that_is_kept_in_one_of_many_drawers"
    many = catalog({f"desk{at}": noting(250, prefix) for at in range(8)})
    assert "\nby name" in answer(many, "keep a note", limit=1000)
    ten, thousand = (work_of(partial(answer, many, "keep a note", limit=limit)) for limit in (100, 1000))
    assert thousand < 15 * ten


def test_the_same_question_has_the_same_answer() -> None:
    again = catalog({"desk": noting(40), "shelf": noting(40, "notebook_page")})
    assert answer(again, "keep a note") == answer(MANY, "keep a note")


_NAME = st.text(st.sampled_from("abcxyz_. -§界"), min_size=1, max_size=300)
_TOOL = st.fixed_dictionaries(
    {
        "name": _NAME,
        "description": st.text(st.sampled_from("note by name: ;,()\n界"), max_size=400),
        "inputSchema": st.fixed_dictionaries(
            {"properties": st.dictionaries(_NAME, st.just({"type": "string"}), max_size=6)}
        ),
    }
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(_NAME, st.lists(_TOOL, min_size=1, max_size=12), min_size=1, max_size=6), st.integers(100, 400))
def test_an_answer_keeps_to_its_room_whatever_tools_are_called(
    servers: dict[str, list[dict[str, Any]]], room: int
) -> None:
    noted = {name: [{**tool, "title": "note"} for tool in tools] for name, tools in servers.items()}
    text = answer(catalog(noted), "note", list_tokens=room)
    assert count(text) <= room * 1.2  # names are estimated, and these are unlike any that were measured


@pytest.mark.parametrize("room", [100, 300, 600])
def test_the_room_of_an_answer_is_used(room: int) -> None:
    assert 0.6 * room < count(answer(MANY, "keep a note", list_tokens=room)) <= room


def test_why_a_server_is_unavailable_is_told_as_far_as_there_is_room() -> None:
    reason = "not connected: the server process exited with code 1; its last words: " + "Cannot find module. " * 5
    tools = noting(2)
    one = Catalog.build([ServerListing("desk", tools), ServerListing("lost", [], trouble=reason)])
    assert " ".join(reason.split()) in answer(one, None)
    many = Catalog.build([ServerListing(f"lost{at}", [], trouble=reason) for at in range(8)])
    text = answer(many, None)
    assert text.count("unavailable: not connected: the s") == 8 and count(text) <= 300
