"""A second opinion: the same request through any-llm's translation and through mcpgate's, to the same provider. What the
provider is sent and what the client gets are compared field by field; each difference has its reason below, and a reason
that no difference needs any more is told as well.

any-llm cannot be installed beside the SDKs that the other tests use, so it runs in an environment of its own, which
$MCPGATE_ANY_LLM_PYTHON names; without it, these tests are skipped (CI sets it)."""

import fnmatch
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.bedrock_wire import ACCESS, REGION, SECRET
from tests.conftest import IN_CI
from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, write_config
from tests.model_provider import ModelProvider, Received

_PROGRAM = Path(__file__).parent / "translate.py"
_PATHS = {"completion": "/v1/chat/completions", "messages": "/v1/messages", "embeddings": "/v1/embeddings"}
TEXT = {"role": "user", "content": "Say hello."}
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Where"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
TOOL = {"type": "function", "function": WEATHER}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
CALLS = [
    {"id": f"call_{n}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
    for n, city in enumerate(("Paris", "Rome"))
]
RESULTS = [{"role": "tool", "tool_call_id": f"call_{n}", "content": text} for n, text in enumerate(("Rain.", "Sun."))]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
CHATS: dict[str, dict[str, Any]] = {
    "text": {"messages": [TEXT], "max_tokens": 50},
    "system": {"messages": [{"role": "system", "content": "Be kind."}, TEXT], "max_tokens": 50},
    "turns": {"messages": [TEXT, {"role": "assistant", "content": "Hello."}, TEXT], "max_tokens": 50},
    "settings": {"messages": [TEXT], "max_tokens": 50, "temperature": 0.5, "top_p": 0.9, "stop": ["END", "STOP"]},
    "tools": {"messages": [TEXT], "max_tokens": 50, "tools": [TOOL], "tool_choice": "auto"},
    "required": {"messages": [TEXT], "max_tokens": 50, "tools": [TOOL], "tool_choice": "required"},
    "results": {
        "messages": [TEXT, {"role": "assistant", "content": None, "tool_calls": CALLS}, *RESULTS],
        "max_tokens": 50,
        "tools": [TOOL],
    },
    "image": {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}], "max_tokens": 50},
    "schema": {
        "messages": [TEXT],
        "max_tokens": 50,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
    },
    "called": {"messages": [TEXT], "max_tokens": 50, "tools": [TOOL]},
    "called-stream": {
        **{"messages": [TEXT], "max_tokens": 50, "tools": [TOOL]},
        **{"stream": True, "stream_options": {"include_usage": True}},
    },
    "stream": {"messages": [TEXT], "max_tokens": 50, "stream": True, "stream_options": {"include_usage": True}},
}
MESSAGES: dict[str, dict[str, Any]] = {
    "text": {"messages": [TEXT], "max_tokens": 50, "system": "Be kind."},
    "tools": {
        "messages": [
            TEXT,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Rain."}]},
        ],
        "max_tokens": 50,
        "tools": [{"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER["parameters"]}],
        "tool_choice": {"type": "any"},
    },
}
EMBEDDINGS: dict[str, dict[str, Any]] = {"texts": {"input": ["a", "b"]}}
CALLING = {"anthropic": "signing", "gemini": "signing", "bedrock": "tools"}
"""Models that think and call tools, for the cases `called`."""
CASES = [
    *(
        ("completion", name, body, where)
        for name, body in CHATS.items()
        for where in ("anthropic", "gemini", "bedrock")
        if (name, where) != ("schema", "bedrock")  # which any-llm refuses
    ),
    *(("messages", name, body, where) for name, body in MESSAGES.items() for where in ("openai", "gemini")),
    *(("embeddings", name, body, "gemini") for name, body in EMBEDDINGS.items()),
]
EXPLAINED: dict[tuple[str, str], str] = {
    # what the client gets
    ("*", "completion.*.answer.created"): "any-llm has no time where the provider says none; mcpgate says when it was",
    ("*", "completion.*.answer.usage.*.reasoningTokens"): "mcpgate says 0 where any-llm says nothing",
    ("gemini", "completion.*.answer.usage.*.cacheWriteTokens"): "mcpgate says 0 where any-llm says nothing",
    ("bedrock", "completion.*.answer.usage.*.cacheWriteTokens"): "any-llm drops what Bedrock wrote into its cache",
    ("anthropic", "*.message.content"): "any-llm says an empty text where the model has said none",
    (
        "*",
        "completion.*.message.reasoning*",
    ): "any-llm's name is `reasoning`; mcpgate's, those of OpenRouter and DeepSeek",
    (
        "*",
        "*.extraContent.*",
    ): "signatures are where each client library looks for them; mcpgate's in `reasoning_details`",
    ("gemini", "*.answer.id"): "any-llm gives each answer of Gemini the same id; mcpgate gives Gemini's own",
    ("bedrock", "*.answer.id"): "Converse has no id; any-llm leaves it empty, mcpgate makes one",
    ("bedrock", "*.answer.model"): "Converse does not repeat the model; mcpgate knows it from the request",
    ("*", "messages.*.answer.usage.cacheCreation*"): "the SDK's type has it, so mcpgate says 0",
    ("*", "messages.*.answer.usage.outputTokensDetails.*"): "any-llm does not tell thinking apart",
    ("*", "messages.*.answer.usage.serviceTier"): "the SDK's type has it; any-llm leaves it out",
    ("gemini", "embeddings.*.answer.usage.*"): "any-llm does not read Gemini's usage of embeddings",
    # what providers are sent
    ("anthropic", "*.sent.toolChoice.disableParallelToolUse"): "any-llm says false, which is the default",
    (
        "gemini",
        "*.sent.tools.*.parameters.*",
    ): "any-llm translates schemas into Google's dialect, and loses what it lacks",
    ("gemini", "*.sent.tools.*.parametersJsonSchema.*"): "mcpgate sends them as they are, in the field for JSON Schema",
    ("gemini", "*.sent.contents.*.functionResponse.response.*"): "Google's docs say `output`; any-llm writes `result`",
    ("gemini", "*.sent.systemInstruction.role"): "instructions have no role; any-llm says user",
    ("gemini", "*.sent.requests.*.content.role"): "a text to embed has no role; any-llm says user",
    ("openai", "*.sent.maxCompletionTokens"): "any-llm takes every address for OpenAI's own",
    ("openai", "*.sent.maxTokens"): "others than OpenAI know only this name",
}
"""Provider (a glob) and glob over the case, whose side it is and the field → why the two differ."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder, origin = tmp_path_factory.mktemp("any_llm"), provider.address.removesuffix("/v1")
    aws = {"region": REGION, "access_key_id": ACCESS, "secret_access_key": SECRET}
    providers = {
        "anthropic": {"type": "anthropic", "base_url": provider.address, "api_key": "k"},
        "gemini": {"type": "gemini", "base_url": origin, "api_key": "k"},
        "bedrock": {"type": "bedrock", "base_url": origin, "aws": aws},
        "openai": {"type": "openai", "base_url": provider.address, "api_key": "k"},
    }
    keys = {"admin": {**TRUSTED["admin"], "grants": {"models": ["*"]}}}
    config = write_config(folder, {}, governance={"keys": keys}, llm={"providers": providers})
    with serving(folder, config) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(provider: ModelProvider) -> list[tuple[Received, Any]]:
    """What any-llm sent for each case, and what it made of the answer."""
    python = os.environ.get("MCPGATE_ANY_LLM_PYTHON", "")
    if not python:
        (pytest.fail if IN_CI else pytest.skip)("MCPGATE_ANY_LLM_PYTHON names no Python that has any-llm-sdk")
    origin = provider.address.removesuffix("/v1")
    cases = [
        {
            **{"api": api, "provider": where, "key": "k", "base": provider.address if where == "openai" else origin},
            "body": {"model": model_of(name, where), **body},
        }
        for api, name, body, where in CASES
    ]
    provider.received.clear()
    env = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": REGION}
    ran = subprocess.run(
        [python, "-I", str(_PROGRAM)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env},
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout)
    assert len(provider.received) == len(CASES), [one for one in answers if "error" in one]
    assert all("answer" in one for one in answers), [one for one in answers if "error" in one]
    return [(sent, one["answer"]) for sent, one in zip(provider.received, answers, strict=True)]


def test_two_translations_differ_only_where_there_is_a_reason(
    served: Served, provider: ModelProvider, theirs: list[tuple[Received, Any]]
) -> None:
    needed: set[tuple[str, str]] = set()
    surprises = []
    for (api, name, body, where), (their_request, their_answer) in zip(CASES, theirs, strict=True):
        provider.received.clear()
        asked = {"model": f"{where}/{model_of(name, where)}", **body}
        answer = served.http().post(_PATHS[api], json=asked, headers=bearer(ADMIN))
        assert answer.status_code == 200, (api, name, where, answer.text)
        ours = {"sent": provider.received[-1].body, "answer": whole(answer.text, bool(body.get("stream")))}
        other = {"sent": their_request.body, "answer": assembled(their_answer)}
        for path, left, right in differences(fields(ours), fields(other)):
            place = f"{api}.{name}.{path}"
            reasons = [
                key for key in EXPLAINED if fnmatch.fnmatchcase(where, key[0]) and fnmatch.fnmatchcase(place, key[1])
            ]
            needed.update(reasons)
            if not reasons:
                surprises.append(f"{where}: {place}: mcpgate {left!r}, any-llm {right!r}")
    assert not surprises, "\n".join(surprises)
    assert needed == set(EXPLAINED), "these reasons are needed no more"


def model_of(case: str, where: str) -> str:
    return CALLING[where] if case.startswith("called") else "good"


def whole(text: str, stream: bool) -> Any:
    if not stream:
        return json.loads(text)
    return assembled([json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")])


def assembled(answer: Any) -> Any:
    """A streamed answer as if it had come at once."""
    if not isinstance(answer, list):
        return answer
    deltas = [choice["delta"] for chunk in answer for choice in chunk["choices"]]
    ends = [choice.get("finish_reason") for chunk in answer for choice in chunk["choices"]]
    usage = [chunk["usage"] for chunk in answer if chunk.get("usage")]
    calls: dict[int, dict[str, str]] = {}
    for part in (part for delta in deltas for part in delta.get("tool_calls") or ()):
        call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] += part.get("id") or ""
        for name in ("name", "arguments"):
            call[name] += (part.get("function") or {}).get(name) or ""
    return {
        "model": answer[0]["model"],
        "calls": [calls[index] for index in sorted(calls)],
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "finish": [end for end in ends if end],
        "usage": usage[-1] if usage else None,
    }


def fields(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf by its path; nothing is the same as null, names are in camelCase whatever their spelling was, and the
    arguments of a call are JSON whatever its blanks are."""
    if isinstance(value, str) and path.endswith(".arguments"):
        value = json.loads(value)
    if isinstance(value, Mapping):
        inner = [(re.sub(r"_([a-z])", lambda found: found[1].upper(), name), one) for name, one in value.items()]
    elif isinstance(value, list):
        inner = [(str(number), one) for number, one in enumerate(value)]
    else:
        return {} if value is None else {path: value}
    found: dict[str, Any] = {}
    for name, one in inner:
        found |= fields(one, f"{path}.{name}".strip("."))
    return found


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for path in sorted({*ours, *theirs}):
        if ours.get(path) != theirs.get(path):
            yield path, ours.get(path), theirs.get(path)
