"""Requests and answers for tests, made by hypothesis: what a pair of formats can both say."""

import json
from itertools import chain
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mcpgate.llm.messages import (
    ChatAnswer,
    ChatRequest,
    File,
    Image,
    JsonOutput,
    Message,
    PartEnded,
    PartGrew,
    PartStarted,
    Reasoning,
    Started,
    Stopped,
    StreamEvent,
    Text,
    Thinking,
    TokenUsage,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

UNHURRIED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For busy machines."""

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
bases = st.sampled_from(["aGVsbG8=", "AAAA", ""])
values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | words, lambda one: st.lists(one, max_size=3))
objects = st.dictionaries(words, values, max_size=3)
arguments = objects.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))
schemas = st.dictionaries(names, values, max_size=2).map(lambda some: {"type": "object", "properties": some})
texts = st.builds(Text, words)
images = st.builds(Image, st.just("image/png"), data=bases) | st.builds(
    Image, st.just(""), url=st.just("https://a.example/b.png")
)
files = st.builds(File, st.just("application/pdf"), data=bases, name=names)
calls = st.builds(ToolCall, names, names, arguments)
results = st.builds(ToolResult, names, st.lists(texts, min_size=1, max_size=3).map(tuple))
tools = st.builds(Tool, names, words, schemas, st.none() | st.booleans())
thoughts = st.builds(Thinking, words, signature=words) | st.builds(Thinking, st.just(""), encrypted=words)

# An assistant's message in the order that Chat Completions can say.
said = st.tuples(st.lists(thoughts, max_size=2), st.lists(texts, max_size=2), st.lists(calls, max_size=3))
assistants = said.filter(lambda lists: any(lists)).map(lambda lists: Message("assistant", tuple(chain(*lists))))
heard = st.tuples(st.lists(results, max_size=2), st.lists(texts | images | files, min_size=1, max_size=3))
users = heard.map(lambda lists: Message("user", tuple(chain(*lists))))
laters = st.lists(texts, min_size=1, max_size=2).map(lambda parts: Message("system", tuple(parts)))
choices = st.builds(
    ToolChoice, st.sampled_from(["auto", "none", "required"]), parallel=st.none() | st.booleans()
) | st.builds(ToolChoice, st.just("tool"), names, st.none() | st.booleans())

requests = st.builds(
    ChatRequest,
    model=names,
    messages=st.tuples(users, assistants, users, laters, assistants, users),
    system=st.lists(texts, max_size=2).map(tuple),
    tools=st.lists(tools, min_size=1, max_size=2).map(tuple),
    tool_choice=choices,
    max_tokens=st.integers(1, 9999),
    temperature=st.none() | st.floats(0, 1),
    top_p=st.none() | st.floats(0, 1),
    stop=st.lists(words, max_size=2).map(tuple),
    output=st.none() | st.builds(JsonOutput, schemas, strict=st.just(True)),
    reasoning=st.none() | st.builds(Reasoning, st.sampled_from(["low", "medium", "high", "xhigh", "max"])),
    user=st.just("") | names,
    stream=st.booleans(),
)

usages = st.builds(
    lambda fresh, read, short, long, output, reasoning: TokenUsage(
        fresh + read + short + long, output + reasoning, read, short + long, long, reasoning
    ),
    *[st.integers(0, 999)] * 6,
)

parts = said.map(
    lambda lists: tuple([*lists[0], *([Text("".join(t.text for t in lists[1]))] if lists[1] else []), *lists[2]])
)


@st.composite
def answers(draw: Any) -> ChatAnswer:
    some = draw(parts)
    stop = (
        "tool_calls" if any(isinstance(part, ToolCall) for part in some) else draw(st.sampled_from(["stop", "length"]))
    )
    return ChatAnswer(draw(names), draw(names), some, stop, draw(usages), created=draw(st.integers(1, 2**31)))


@st.composite
def streams(draw: Any, by_turns: bool = True) -> tuple[ChatAnswer, list[StreamEvent]]:
    """An answer, and its events in pieces; tool calls grow by turns."""
    answer = draw(answers())
    events: list[StreamEvent] = [Started(answer.id, answer.model, created=answer.created)]
    waiting: list[list[StreamEvent]] = []
    for index, part in enumerate(answer.parts):
        pieces = _pieces(draw, index, part)
        if isinstance(part, ToolCall) and by_turns:
            waiting.append(pieces)
        else:
            events += pieces
    starts = [pieces.pop(0) for pieces in waiting]
    events += starts
    while waiting:
        pieces = draw(st.sampled_from(waiting))
        events.append(pieces.pop(0))
        waiting = [one for one in waiting if one]
    return answer, [*events, Stopped(answer.stop, answer.usage)]


def _pieces(draw: Any, index: int, part: Any) -> list[StreamEvent]:
    whole = part.arguments if isinstance(part, ToolCall) else part.text
    at = draw(st.integers(0, len(whole)))
    empty = part
    if isinstance(part, ToolCall):
        empty = ToolCall(part.id, part.name, "")
    elif isinstance(part, Thinking):
        empty = Thinking("", encrypted=part.encrypted)
    elif isinstance(part, Text):
        empty = Text("")
    grown = [PartGrew(index, piece) for piece in (whole[:at], whole[at:]) if piece]
    if isinstance(part, Thinking) and part.signature:
        grown.append(PartGrew(index, signature=part.signature))
    return [PartStarted(index, empty), *grown, PartEnded(index)]


def collect(events: list[StreamEvent]) -> ChatAnswer:
    """The answer that a stream's events add up to."""
    started = next(event for event in events if isinstance(event, Started))
    stopped = events[-1]
    assert isinstance(stopped, Stopped)
    grown: dict[int, Any] = {}
    opened: set[int] = set()
    for event in events:
        if isinstance(event, PartStarted):
            assert event.index == len(grown)
            grown[event.index] = event.part
            opened.add(event.index)
        elif isinstance(event, PartGrew):
            assert event.index in opened
            grown[event.index] = _grown(grown[event.index], event)
        elif isinstance(event, PartEnded):
            opened.remove(event.index)
    assert not opened
    return ChatAnswer(
        started.id,
        started.model,
        tuple(grown.values()),
        stopped.stop,
        stopped.usage,
        stopped.stop_sequence,
        started.created,
    )


def _grown(part: Any, event: PartGrew) -> Any:
    if isinstance(part, ToolCall):
        return ToolCall(part.id, part.name, part.arguments + event.text)
    if isinstance(part, Thinking):
        return Thinking(part.text + event.text, part.signature + event.signature, part.encrypted, part.id)
    return type(part)(part.text + event.text)
