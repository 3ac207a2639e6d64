"""An agent of the OpenAI Agents SDK. Its model is a script, so that it runs without an API key: for a real one, leave
`model` out and set OPENAI_API_KEY."""

import asyncio
import json
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from task import ARGUMENTS, CODE, MCPGATE, QUESTION


class Script(Model):
    async def get_response(self, system_instructions: Any, input: Any, **more: Any) -> ModelResponse:
        if isinstance(input, str) or len(input) == 1:
            code = json.dumps({"code": CODE})
            item = ResponseFunctionToolCall(call_id="1", name="execute_code", arguments=code, type="function_call")
        else:
            text = ResponseOutputText(text=input[-1]["output"][0]["text"], type="output_text", annotations=[])
            item = ResponseOutputMessage(id="2", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *more: Any, **named: Any) -> Any:
        raise NotImplementedError


async def main() -> None:
    set_tracing_disabled(True)
    async with MCPServerStdio({"command": MCPGATE, "args": ARGUMENTS}, client_session_timeout_seconds=60) as gateway:
        agent = Agent(name="clock", model=Script(), mcp_servers=[gateway])
        print((await Runner.run(agent, QUESTION)).final_output)


asyncio.run(main())
