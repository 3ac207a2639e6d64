"""Amazon Bedrock as far as its wire goes, for model_provider.py: signatures are checked with botocore's own code, bodies
against its service model, and streams are AWS's binary events. By the name of the model:

    tools           calls two tools at once, and says their results
    throttled       a throttlingException in place of the first event
    broken          a modelStreamErrorException after three events
    mid-frame       a stream that ends within an event
    flipped         an event whose checksum is wrong
    pretty          JSON over several lines, events of a next year
"""

import binascii
import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import percent_encode
from botocore.validate import ParamValidator

ACCESS, SECRET, REGION = "AKIDOFTHETESTS", "aws-secret-of-the-tests", "eu-central-1"
API_KEY = "bedrock-api-key-of-the-tests"
USAGE = {
    "inputTokens": 500,
    "outputTokens": 50,
    "totalTokens": 1050,
    "cacheReadInputTokens": 400,
    "cacheWriteInputTokens": 100,
}
THINKING = {"text": "Let me look.", "signature": "EqQBCkgIBxABGAIiQ+/claudes=="}


@functools.cache
def service() -> Any:
    return botocore.session.Session().get_service_model("bedrock-runtime")


def is_bedrocks(path: str) -> bool:
    return path.startswith("/model/")


def model_of(path: str) -> str:
    """Its name, which must be one segment of the path, as AWS's own programs quote it."""
    _, _, quoted, _ = path.split("/")
    assert percent_encode(unquote(quoted), safe="-._~") == quoted, path
    return unquote(quoted)


def embedded(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """What InvokeModel answers for embeddings: Titan one text, Cohere a list."""
    if "titan" in model:
        assert isinstance(body["inputText"], str)
        return {"embedding": [0.5, -0.5], "inputTextTokenCount": 10}
    assert body["input_type"] and body["embedding_types"] == ["float"]
    vectors = [[0.5 + at, -0.5] for at, _ in enumerate(body["texts"])]
    return {"id": "e1", "response_type": "embeddings_by_type", "embeddings": {"float": vectors}, "texts": body["texts"]}


def is_stream(path: str) -> bool:
    return path.endswith("/converse-stream")


def refused(method: str, path: str, headers: dict[str, str], body: bytes) -> str:
    """The type of the error that a request of somebody unknown gets; empty for a good one."""
    authorization = headers.get("authorization", "")
    if authorization.startswith("Bearer "):
        return "" if authorization == f"Bearer {API_KEY}" else "AccessDeniedException"
    if f"Credential={ACCESS}" not in authorization:
        return "UnrecognizedClientException"
    names = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "content-type"} <= set(names)
    assert all(name in names for name in headers if name.startswith("x-amz-"))
    request = AWSRequest(method, f"http://{headers['host']}{path}", {name: headers[name] for name in names}, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(ACCESS, SECRET), "bedrock", REGION)
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return "" if authorization.endswith(f"Signature={signature}") else "InvalidSignatureException"


def invalid(path: str, body: dict[str, Any]) -> str:
    """What botocore's service model has against a body; empty for nothing. In Python, blobs are bytes."""
    shape = service().operation_model("ConverseStream" if is_stream(path) else "Converse").input_shape
    for name in body:
        assert name in shape.members, name
    report = ParamValidator().validate({**_with_bytes(body), "modelId": model_of(path)}, shape)
    roles = [message["role"] for message in body.get("messages", ())]
    if any(one == next for one, next in itertools.pairwise(roles)):
        return "A conversation must alternate between user and assistant roles."
    blocks = [block for message in body.get("messages", ()) for block in message["content"]]
    if any("toolUse" in block or "toolResult" in block for block in blocks) and "toolConfig" not in body:
        return "The toolConfig field must be defined when using toolUse and toolResult content blocks."
    contents = [one for block in blocks for one in (block, *block.get("toolResult", {}).get("content", ()))]
    if any("text" in one and not one["text"].strip() for one in (*contents, *body.get("system", ()))):
        return "The text field in the ContentBlock object is blank."
    return report.generate_report()


def _with_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        blobs = ("bytes", "redactedContent")
        return {name: one.encode() if name in blobs else _with_bytes(one) for name, one in value.items()}
    return [_with_bytes(one) for one in value] if isinstance(value, list) else value


def blocks_of(model: str, body: dict[str, Any], words: list[str]) -> list[dict[str, Any]]:
    if model != "tools":
        return [{"text": "".join(words)}]
    results = [block["toolResult"] for one in body["messages"] for block in one["content"] if "toolResult" in block]
    if results:
        return [{"text": f"{one['toolUseId']}: {one['content'][0]['text']}"} for one in results]
    name = body["toolConfig"]["tools"][0]["toolSpec"]["name"]
    calls = [{"toolUse": {"toolUseId": f"tooluse_{n}", "name": name, "input": {"n": n}}} for n in (1, 2)]
    return [{"reasoningContent": {"reasoningText": THINKING}}, *calls]


def whole(model: str, body: dict[str, Any], words: list[str]) -> dict[str, Any]:
    content = blocks_of(model, body, words)
    stop = "tool_use" if "toolUse" in content[-1] else "end_turn"
    said = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": stop}
    return {**said, "metrics": {"latencyMs": 1}, **({} if model == "no-usage" else {"usage": USAGE})}


def events(model: str, body: dict[str, Any], words: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant", "p": "abcd"}
    content = blocks_of(model, body, words)
    for index, block in enumerate(content):
        at = {"contentBlockIndex": index, "p": "abcdefgh"}
        if "text" in block:
            pieces = words if model != "tools" else [block["text"]]
            deltas: list[dict[str, Any]] = [{"text": piece} for piece in pieces]
        elif "toolUse" in block:
            call = dict(block["toolUse"])
            arguments = json.dumps(call.pop("input"))
            yield "contentBlockStart", {**at, "start": {"toolUse": call}}
            deltas = [{"toolUse": {"input": piece}} for piece in ("", arguments[:3], arguments[3:])]
        else:
            deltas = [{"reasoningContent": {name: text}} for name, text in THINKING.items()]
        for delta in deltas:
            yield "contentBlockDelta", {**at, "delta": delta}
        yield "contentBlockStop", at
    yield "messageStop", {"stopReason": "tool_use" if "toolUse" in content[-1] else "end_turn"}
    if model != "no-usage":
        yield "metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}


def stream(model: str, body: dict[str, Any], words: list[str]) -> Iterator[bytes]:
    if model == "throttled":
        yield exception("throttlingException", "Too many requests, please wait before trying again.")
        return
    for number, (name, data) in enumerate(events(model, body, words)):
        sent = frame(name, data, indent=2 if model == "pretty" else None)
        if model == "pretty":
            yield frame("anEventOfNextYear", {"a": "b"})
        if number == 3 and model == "broken":
            yield exception("modelStreamErrorException", "The model has failed.")
            return
        if number == 3 and model == "mid-frame":
            yield sent[:20]
            return
        if number == 3 and model == "flipped":
            sent = sent[:-5] + bytes([sent[-5] ^ 1]) + sent[-4:]
        yield sent


def frame(name: str, data: dict[str, Any], indent: int | None = None) -> bytes:
    about = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode(about, json.dumps(data, indent=indent).encode())


def exception(name: str, message: str) -> bytes:
    about = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return encode(about, json.dumps({"message": message}).encode())


def encode(headers: dict[str, str], payload: bytes) -> bytes:
    """An event in AWS's binary form."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + len(text).to_bytes(2) + text.encode()
        for name, text in headers.items()
    )
    prelude = (16 + len(head) + len(payload)).to_bytes(4) + len(head).to_bytes(4)
    checked = prelude + binascii.crc32(prelude).to_bytes(4) + head + payload
    return checked + binascii.crc32(checked).to_bytes(4)
