"""Agent frameworks whose models are mcpgate's, in front of a provider of each format. The echo stands for the model: it
repeats what it is told, and calls a tool when it must."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.conftest import IN_CI
from tests.flows.governed import ADMIN, TRUSTED, Served, serving, write_config

pytestmark = pytest.mark.anyio
MODELS = ["echo/m", "open/echo/m", "claude/echo/m"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Behind a second gateway, whose providers are the first one's faces."""
    echo: dict[str, Any] = {"echo": {"type": "echo"}}
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    behind, before = tmp_path_factory.mktemp("behind"), tmp_path_factory.mktemp("before")
    governance = {"keys": keys}
    with serving(behind, write_config(behind, {}, governance=governance, llm={"providers": echo})) as provider:
        providers = {
            **echo,
            "open": {"type": "openai", "base_url": f"{provider.address}/v1", "api_key": ADMIN},
            "claude": {"type": "anthropic", "base_url": provider.address, "api_key": ADMIN},
        }
        with serving(before, write_config(before, {}, governance=governance, llm={"providers": providers})) as running:
            yield running


class Found(BaseModel):
    place: str = "nowhere"


@pytest.mark.parametrize("name", MODELS)
async def test_pydantic_ai_gets_text_streams_and_structured_output(name: str, served: Served) -> None:
    async with (
        AsyncOpenAI(base_url=f"{served.address}/v1", api_key=ADMIN) as openai,
        AsyncAnthropic(base_url=served.address, api_key=ADMIN) as anthropic,
    ):
        models = (
            OpenAIChatModel(name, provider=OpenAIProvider(openai_client=openai)),
            OpenAIResponsesModel(name, provider=OpenAIProvider(openai_client=openai)),
            AnthropicModel(name, provider=AnthropicProvider(anthropic_client=anthropic)),
        )
        for model in models:
            agent = Agent(model, system_prompt="You are a fox.")
            answer = await agent.run("Where is the hen?")
            assert answer.output == "Where is the hen?" and answer.usage.input_tokens > 0
            async with agent.run_stream("Where is the hen?") as stream:
                assert await stream.get_output() == "Where is the hen?"
            found = await Agent(model, output_type=Found).run("Find it.")
            assert found.output == Found()


AGENTS_SDK = """
import asyncio, sys
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from agents import set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)

@function_tool
def look() -> str:
    "Look around."
    return "a hen"

async def main():
    client = AsyncOpenAI(base_url=sys.argv[1], api_key=sys.argv[2])
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        for name in sys.argv[3:]:
            model = kind(model=name, openai_client=client)
            plain = Agent(name="fox", instructions="You are a fox.", model=model)
            print((await Runner.run(plain, "Where is the hen?")).final_output)
            settings = ModelSettings(tool_choice="required")
            with_tool = Agent(
                name="fox", model=model, tools=[look], model_settings=settings, tool_use_behavior="stop_on_first_tool"
            )
            print((await Runner.run(with_tool, "Look!")).final_output)

asyncio.run(main())
"""


def test_openais_agents_sdk_runs_its_loop(served: Served, tmp_path: Path) -> None:
    python = os.environ.get("MCPGATE_EXAMPLES_PYTHON", "")
    if not python:
        (pytest.fail if IN_CI else pytest.skip)("MCPGATE_EXAMPLES_PYTHON names no Python that has openai-agents")
    command = [python, "-c", AGENTS_SDK, f"{served.address}/v1", ADMIN, *MODELS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Where is the hen?", "a hen"] * 6, sys.version
