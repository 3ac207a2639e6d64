"""Bodies like those that agents send and providers answer."""

from typing import Any

_SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}},
    "required": ["path"],
    "additionalProperties": False,
}

CLAUDE_CODE: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 64000,
    "stream": True,
    "metadata": {"user_id": '{"device_id":"' + "0" * 64 + '","account_uuid":"","session_id":"1f0e"}'},
    "thinking": {"type": "adaptive", "display": "summarized"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332; cch=00000;"},
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "tools": [
        {"name": "Read", "description": "Reads a file", "input_schema": _SCHEMA, "eager_input_streaming": True},
        {"name": "Later", "description": "Rarely used", "input_schema": _SCHEMA, "defer_loading": True},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "<system-reminder>hi</system-reminder>"}]},
        {"role": "system", "content": [{"type": "text", "text": "tools"}], "output_config": {"effort": "high"}},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me look.", "signature": "EqQB"},
                {"type": "text", "text": "I will look."},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a.png"}},
                {"type": "tool_use", "id": "toolu_2", "name": "Read", "input": {"path": "b.txt"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
                    ],
                },
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such file", "is_error": True},
                {"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
}

CODEX: dict[str, Any] = {
    "model": "gpt-6-sol",
    "instructions": "You are Codex.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions/>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context/>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Looking"}],
            "content": None,
            "encrypted_content": "mcpgate.signed.EqQB",
        },
        {"type": "function_call", "name": "shell", "arguments": '{"path":"a"}', "call_id": "call_1"},
        {
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "call_2",
            "name": "apply_patch",
            "input": "*** Begin",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "ok"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "done"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Fixed."}],
            "phase": "final_answer",
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}],
        },
    ],
    "tools": [
        {"type": "function", "name": "shell", "description": "Runs", "strict": False, "parameters": _SCHEMA},
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
        },
        {
            "type": "namespace",
            "name": "multi_agent_v1",
            "description": "Tools for spawning and managing sub-agents.",
            "tools": [{"type": "function", "name": "spawn_agent", "strict": False, "parameters": _SCHEMA}],
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199",
    "client_metadata": {"x-codex-installation-id": "1"},
    "text": {"verbosity": "medium"},
}

OPENCODE: dict[str, Any] = {
    "model": "gpt-5.4-nano",
    "max_tokens": 32000,
    "messages": [
        {"role": "system", "content": "You are opencode."},
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Reading first.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "text of a"},
    ],
    "tools": [{"type": "function", "function": {"name": "read", "description": "Reads", "parameters": _SCHEMA}}],
    "tool_choice": "auto",
    "stream": True,
    "stream_options": {"include_usage": True},
}

CHAT: dict[str, Any] = {
    **OPENCODE,
    "messages": [
        *OPENCODE["messages"],
        {"role": "assistant", "content": [{"type": "text", "text": "Well"}], "refusal": None},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "high"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
            ],
        },
    ],
    "temperature": 0.5,
    "stop": ["END"],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA, "strict": True}},
    "reasoning_effort": "low",
}

_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
_CALL = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}}
CHAT_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1764288000,
    "model": "gpt-6-sol",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "tool_calls": [_CALL]},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": _USAGE,
}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1764288000,
        "model": "gpt-6-sol",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


CHAT_CHUNKS: list[Any] = [
    _chunk({"role": "assistant", "content": ""}),
    _chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "hm", "signature": "s"}]}),
    _chunk({"content": "Hi"}),
    _chunk({"tool_calls": [{"index": 0, **_CALL}]}),
    _chunk({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}),
    _chunk({}, "tool_calls"),
    {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": _USAGE},
]

MESSAGES_ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5-5",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "stop_details": None,
    "usage": {
        "input_tokens": 9,
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 4,
    },
}

MESSAGES_EVENTS: list[Any] = [
    {"type": "message_start", "message": {**MESSAGES_ANSWER, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 4, "output_tokens_details": {"thinking_tokens": 1}},
    },
    {"type": "message_stop"},
]

GEMINI_CLI: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "<session_context/>"}, {"text": "go"}]},
        {
            "role": "model",
            "parts": [
                {"text": "I will look."},
                {
                    "functionCall": {"id": "read_file_17_0", "name": "read_file", "args": {"path": "a"}},
                    "thoughtSignature": "skip_thought_signature_validator",
                },
                {"functionCall": {"name": "read_file", "args": {"path": "b.png"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "read_file_17_0",
                        "name": "read_file",
                        "response": {"error": "no such file"},
                    }
                },
                {
                    "functionResponse": {
                        "name": "read_file",
                        "response": {"output": "an image"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}],
                    }
                },
                {"text": "go on"},
            ],
        },
    ],
    "systemInstruction": {"role": "user", "parts": [{"text": "You are Gemini CLI."}]},
    "tools": [
        {"functionDeclarations": [{"name": "read_file", "description": "Reads", "parametersJsonSchema": _SCHEMA}]}
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
    "generationConfig": {
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "maxOutputTokens": 65536,
        "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "HIGH"},
    },
}

_GEMINI_USAGE = {
    "promptTokenCount": 9,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 1,
    "totalTokenCount": 13,
    "cachedContentTokenCount": 2,
}
GEMINI_ANSWER: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "hm", "thought": True},
                    {"text": "Hi", "thoughtSignature": "dGV4dA=="},
                    {
                        "functionCall": {"id": "f1", "name": "read", "args": {"path": "a"}},
                        "thoughtSignature": "Y2FsbA==",
                    },
                    {"functionCall": {"id": "f2", "name": "read", "args": {}}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": _GEMINI_USAGE,
    "modelVersion": "gemini-3-pro",
    "responseId": "r1",
}


def _gemini_chunk(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [part]}, "index": 0, **more}
    usage = _GEMINI_USAGE if more else {"promptTokenCount": 9, "totalTokenCount": 9}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3-pro", "responseId": "r1"}


GEMINI_CHUNKS: list[Any] = [
    _gemini_chunk({"text": "h", "thought": True}),
    _gemini_chunk({"text": "m", "thought": True}),
    _gemini_chunk({"text": "H"}),
    _gemini_chunk({"text": "i", "thoughtSignature": "dGV4dA=="}),
    *[_gemini_chunk(part) for part in GEMINI_ANSWER["candidates"][0]["content"]["parts"][2:]],
    _gemini_chunk({"text": ""}, finishReason="STOP"),
]

BEDROCK_ANSWER: dict[str, Any] = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                {"reasoningContent": {"redactedContent": "eA=="}},
                {"text": "It is"},
                {"toolUse": {"toolUseId": "tooluse_1", "name": "read", "input": {"path": "a"}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": {
        "inputTokens": 9,
        "outputTokens": 4,
        "totalTokens": 20,
        "cacheReadInputTokens": 5,
        "cacheWriteInputTokens": 2,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 2}],
    },
    "metrics": {"latencyMs": 1},
}

BEDROCK_EVENTS: list[Any] = [
    {"messageStart": {"role": "assistant", "p": "abc"}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}},
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "It is"}}},
    {"contentBlockStop": {"contentBlockIndex": 1}},
    {"contentBlockStart": {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t", "name": "read"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 2, "delta": {"toolUse": {"input": "{}"}}}},
    {"contentBlockStop": {"contentBlockIndex": 2}},
    {"messageStop": {"stopReason": "tool_use"}},
    {"metadata": {"usage": BEDROCK_ANSWER["usage"], "metrics": {"latencyMs": 1}}},
]
