"""Traces of both faces, as a collector gets them: what belongs together, what is said of it, and what goes on to servers
and providers."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import raw
from tests.flows.governed import ADMIN, MODERN, Served, bearer, call_of, free_port, serving, write_config
from tests.flows.governed import wait_until as wait
from tests.model_provider import USAGE, ModelProvider
from tests.otlp_collector import Collector, Received, grpc_collector, http_collector

SERVER = Path(__file__).resolve().parent.parent / "sdk_server.py"
PRICE = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10, "cache_read_usd_per_mtok": 0.5}
SECRET = "the-word-that-no-span-may-have"
ASK = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 100}
STATE = "vendor=t61rcWkgMzE"


def trace_of(number: int) -> tuple[str, dict[str, str]]:
    """An id of a trace, and the headers of a request in it."""
    trace = f"{number:032x}"
    return trace, {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tracestate": STATE}


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def remote_server() -> Iterator[dict[str, Any]]:
    """The entry of a server over HTTP that tells how it was called."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SERVER), "http", str(port)], stderr=subprocess.DEVNULL)
    try:
        headers = {"Authorization": "Bearer let-me-in"}
        wait(lambda: _listens(port))
        yield {"url": f"http://127.0.0.1:{port}/mcp", "headers": headers, "expose": "both", "prefix": "remote_"}
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def remote() -> Iterator[dict[str, Any]]:
    with remote_server() as entry:
        yield entry


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with http_collector() as running:
        yield running


def sections(provider: ModelProvider) -> dict[str, Any]:
    good, bad = {"target": "open/good"}, {"target": "open/status-503"}
    everything = {"tools": ["*"], "models": ["*"], "admin": True}
    keys = {
        "admin": {"secret": ADMIN, "grants": everything},
        "poor": {"secret": "mg-has-no-money", "grants": everything, "budget": {"limit_usd": 0.0001}},
    }
    llm = {
        "providers": {"open": {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}},
        "models": {"fast": {"targets": [good]}, "safe": {"targets": [bad, good]}},
        "prices": {"*/*": PRICE},
    }
    return {"governance": {"keys": keys}, "llm": llm}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider, remote: dict[str, Any], collector: Collector
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("traced")
    servers = {"remote": remote, "alpha": raw(expose="both")}
    telemetry = {"otlp_endpoint": collector.address, "semconv": 1.41}
    config = write_config(folder, servers, **sections(provider), telemetry=telemetry)
    with serving(folder, config) as running:
        yield running


def spans_of(collector: Collector, trace: str, number: int) -> list[Received]:
    """The spans of a trace, once there are so many, outer ones first."""
    wait(lambda: len(collector.of(trace)) >= number)
    found = collector.of(trace)
    assert len(found) == number, [span.name for span in found]
    return sorted(found, key=lambda span: (span.kind != "server", -span.seconds))


def ask(served: Served, body: dict[str, Any], key: str = ADMIN, **headers: str) -> Any:
    return served.http().post("/v1/chat/completions", json={**ASK, **body}, headers={**bearer(key), **headers})


def test_an_execution_and_its_tool_calls_are_one_trace_that_goes_on_to_the_servers(
    served: Served, collector: Collector
) -> None:
    trace, headers = trace_of(0xA1)
    code = f"heard = remote.traced()\nalpha.echo(text='{SECRET}')\nreturn heard"
    answer = served.call("execute_code", {"code": code}, headers=headers)
    assert answer.ok, answer.text
    heard = json.loads(answer.text)
    outer, *calls = spans_of(collector, trace, 3)
    assert (outer.name, outer.kind, outer.parent) == ("tools/call execute_code", "server", "00f067aa0ba902b7")
    assert outer.attributes["mcpgate.request_id"] == answer.headers["x-request-id"]
    assert {(call.name, call.kind) for call in calls} == {
        ("tools/call traced", "client"),
        ("tools/call echo", "client"),
    }
    assert all(call.is_in(outer) and call.seconds <= outer.seconds for call in calls)
    traced = next(call for call in calls if call.name == "tools/call traced")
    sent = f"00-{trace}-{traced.id}-01"
    assert heard == {"traceparent": sent, "tracestate": STATE, "header": sent, "state": STATE}
    assert traced.attributes["gen_ai.operation.name"] == "execute_tool"
    assert traced.attributes["gen_ai.tool.name"] == "traced"
    assert traced.attributes["mcpgate.server"] == "remote"
    assert traced.attributes["server.address"] == "127.0.0.1"
    echo = next(call for call in calls if call is not traced)
    assert echo.attributes["network.transport"] == "pipe"
    assert {span.state for span in (outer, *calls)} == {STATE}
    assert SECRET not in str(collector.spans)


def test_the_trace_of_a_message_counts_before_that_of_its_connection(served: Served, collector: Collector) -> None:
    (trace, given), (other, headers) = trace_of(0xB1), trace_of(0xB2)
    message = call_of("remote_traced", _meta={**MODERN, **given})
    era = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "remote_traced"}
    answer = served.http().post("/mcp", json=message, headers={**bearer(ADMIN), **headers, **era})
    outer, inner = spans_of(collector, trace, 2)
    assert (outer.kind, inner.kind) == ("server", "client")
    assert inner.is_in(outer)
    assert answer.json()["result"]["structuredContent"]["traceparent"] == f"00-{trace}-{inner.id}-01"
    assert collector.of(other) == []


def test_a_failing_tool_is_an_error_in_its_span_and_not_in_that_of_the_code(
    served: Served, collector: Collector
) -> None:
    trace, headers = trace_of(0xC1)
    code = "try:\n    alpha.fail(message='no')\nexcept ToolError:\n    return 'caught'"
    assert served.call("execute_code", {"code": code}, headers=headers).ok
    outer, call = spans_of(collector, trace, 2)
    assert (outer.failed, call.failed) == (False, True)
    assert call.attributes["error.type"] == "tool_error"


def test_a_request_to_a_model_has_a_span_of_every_attempt(
    served: Served, provider: ModelProvider, collector: Collector
) -> None:
    trace, headers = trace_of(0xD1)
    answer = ask(served, {"model": "safe", "stream": True, "stream_options": {"include_usage": True}}, **headers)
    assert answer.status_code == 200
    outer, *attempts = spans_of(collector, trace, 3)
    assert (outer.name, outer.kind, outer.attributes["mcpgate.attempts"]) == ("chat safe", "server", 2)
    assert all(attempt.is_in(outer) and attempt.kind == "client" for attempt in attempts)
    bad, good = sorted(attempts, key=lambda attempt: not attempt.failed)
    assert (bad.name, bad.attributes["error.type"]) == ("chat status-503", "503")
    assert good.name == "chat good"
    port = int(provider.address.split(":")[2].partition("/")[0])
    wanted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "good",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": USAGE["prompt_tokens"],
        "gen_ai.usage.output_tokens": USAGE["completion_tokens"],
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "mcpgate.cost_usd": 0.0019,
        "llm.cost.total": 0.0019,
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert {name: good.attributes.get(name) for name in wanted} == wanted
    assert 0 < good.attributes["gen_ai.response.time_to_first_chunk"] <= good.seconds
    sent = [one.headers.get("traceparent") for one in provider.received[-2:]]
    assert sent == [f"00-{trace}-{bad.id}-01", f"00-{trace}-{good.id}-01"]
    assert SECRET not in str(collector.spans)


def test_an_answer_of_the_cache_is_a_span_without_an_attempt(served: Served, collector: Collector) -> None:
    (first, asked), (second, again) = trace_of(0xE1), trace_of(0xE2)
    for headers in (asked, again):
        assert (
            ask(served, {"model": "fast", "temperature": 0}, **headers, **{"x-mcpgate-cache": "use"}).status_code == 200
        )
    miss, _ = spans_of(collector, first, 2)
    (hit,) = spans_of(collector, second, 1)
    assert (miss.attributes["mcpgate.cache"], hit.attributes["mcpgate.cache"]) == ("miss", "exact")
    assert hit.attributes["mcpgate.cache_saved_usd"] == 0.0019


def test_a_refused_request_has_a_span_that_says_why(served: Served, collector: Collector) -> None:
    trace, headers = trace_of(0xF1)
    assert ask(served, {"model": "fast", "max_tokens": 4000}, key="mg-has-no-money", **headers).status_code == 402
    outer, attempt = spans_of(collector, trace, 2)
    assert {outer.attributes["error.type"], attempt.attributes["error.type"]} == {"budget_exceeded"}


def test_a_request_without_a_trace_begins_one_and_the_request_log_has_its_id(
    served: Served, collector: Collector
) -> None:
    answer = served.call("alpha__echo", {"text": "x"})
    id = answer.headers["x-request-id"]
    (outer,) = wait(lambda: [s for s in collector.spans if s.attributes.get("mcpgate.request_id") == id])
    assert outer.parent == ""
    assert outer.resource["service.name"] == "mcpgate"
    shown = wait(lambda: served.admin("GET", f"requests/{id}").json())
    assert shown["facts"]["trace"] == outer.trace


def test_a_request_that_says_it_is_not_recorded_is_not(served: Served, collector: Collector) -> None:
    trace, headers = trace_of(0xAA)
    headers["traceparent"] = headers["traceparent"].removesuffix("01") + "00"
    answer = served.call("remote_traced", headers=headers)
    assert answer.result["structuredContent"]["traceparent"].endswith("-00")
    later, headers = trace_of(0xAB)
    served.call("alpha__echo", {"text": "x"}, headers=headers)
    spans_of(collector, later, 2)
    assert collector.of(trace) == []


def test_the_standard_variables_configure_the_export_over_grpc(
    tmp_path: Path, provider: ModelProvider, remote: dict[str, Any]
) -> None:
    with grpc_collector() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-whose=ours",
            "OTEL_SERVICE_NAME": "the-gateway",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        config = write_config(
            tmp_path, {"alpha": raw(expose="both")}, **sections(provider), telemetry={"log_content": True}
        )
        with serving(tmp_path, config, env=variables) as served:
            trace, headers = trace_of(0xA2)
            assert served.call("alpha__echo", {"text": "unseen"}).ok
            assert served.call("alpha__echo", {"text": "seen"}, headers=headers).ok
            served.stop()  # what waits is exported before the end
        outer, inner = spans_of(collector, trace, 2)
        assert collector.spans == collector.of(trace), "the sampler leaves out what nobody else records"
        assert collector.headers["x-whose"] == "ours"
        assert outer.resource["service.name"] == "the-gateway"
        assert outer.resource["deployment.environment.name"] == "test"
        assert "seen" not in str(outer.attributes) + str(inner.attributes), "contents are in the request log only"


def test_without_a_collector_traces_are_passed_on_as_they_came_and_nothing_is_loaded(
    tmp_path: Path, provider: ModelProvider, remote: dict[str, Any]
) -> None:
    config = write_config(tmp_path, {"remote": remote}, **sections(provider))
    with serving(tmp_path, config) as served:
        _, headers = trace_of(0xA3)
        heard = served.call("remote_traced", headers=headers).result["structuredContent"]
        assert (heard["traceparent"], heard["header"]) == (headers["traceparent"], headers["traceparent"])
        assert ask(served, {"model": "fast"}, **headers).status_code == 200
        assert provider.received[-1].headers["traceparent"] == headers["traceparent"]
        assert ask(served, {"model": "fast"}, traceparent="00-nonsense").status_code == 200
        assert "traceparent" not in provider.received[-1].headers
        loaded = Path(f"/proc/{served.process.pid}/maps").read_text()
        assert "grpc" not in loaded


def test_the_sdk_is_not_imported_where_traces_are_off() -> None:
    program = (
        "import asyncio, sys\nfrom mcpgate.app import build\nfrom mcpgate.config.settings import Config\n"
        "app = asyncio.run(build(Config()))\n"
        "assert app.tracer is None\nprint([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
