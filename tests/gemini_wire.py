"""Gemini's generateContent as Google's servers write it. Pure: what a model says follows from its name and from what it
is asked. Models besides those of model_provider:

    signing     thinks, calls the first function twice at once, and refuses a request that does not bring its signature
    blocked     refuses the prompt            unsafe      stops in between, because of a filter
    spoilt      ends with a call that cannot be read
"""

import base64
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

SIGNATURE = base64.b64encode(b"\xfb\xef\xff of a call").decode()
TEXT_SIGNATURE = base64.b64encode(b"\xfb\xef\xff of a text").decode()
UNSIGNED = "skip_thought_signature_validator"
"""Accepted for calls that another model has made."""
THOUGHT = "Let me look."
USAGE = {
    "promptTokenCount": 1000,
    "candidatesTokenCount": 30,
    "totalTokenCount": 1050,
    "cachedContentTokenCount": 400,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
    "thoughtsTokenCount": 20,
}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}}


def bad_key() -> dict[str, Any]:
    said = error(400, "API key not valid. Please pass a valid API key.")
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
    }
    said["error"]["details"] = [info]
    return said


def answer(parts: Sequence[dict[str, Any]], finish: str | None, usage: Any, model: str) -> dict[str, Any]:
    content = {"parts": list(parts), "role": "model"} if parts else {}
    candidate = {"content": content, **({"finishReason": finish} if finish else {}), "index": 0}
    told = {"usageMetadata": usage} if usage else {}
    return {"candidates": [candidate], **told, "modelVersion": model, "responseId": "r-1", "vendorField": [1.0, 10**22]}


def blocked(model: str) -> dict[str, Any]:
    usage = {"promptTokenCount": 1000, "totalTokenCount": 1000}
    feedback = {"blockReason": "PROHIBITED_CONTENT"}
    return {"promptFeedback": feedback, "usageMetadata": usage, "modelVersion": model, "responseId": "r-1"}


def pieces(model: str, body: dict[str, Any], words: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The parts that come one after the other, and how the answer ends."""
    if model == "unsafe":
        return [{"text": words[0]}], "SAFETY"
    if model == "spoilt":
        return [{"text": words[0]}], "MALFORMED_FUNCTION_CALL"
    if model == "signing" and not results(body) and body.get("tools"):
        name = body["tools"][0]["functionDeclarations"][0]["name"]
        calls = [{"id": f"f{n}", "name": name, "args": {"city": city}} for n, city in enumerate(("Paris", "Rome"))]
        first, second = ({"functionCall": call} for call in calls)
        return [{"text": THOUGHT, "thought": True}, {**first, "thoughtSignature": SIGNATURE}, second], "STOP"
    said = [f"It is {one}." for one in results(body)] or list(words)
    parts: list[dict[str, Any]] = [{"text": word} for word in said]
    return [*parts, {"text": "", "thoughtSignature": TEXT_SIGNATURE}] if model == "signing" else parts, "STOP"


def whole(model: str, body: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    if model == "blocked":
        return blocked(model)
    parts, finish = pieces(model, body, words)
    if "thought" not in parts[0] and model != "signing":
        parts = [{"text": "".join(part["text"] for part in parts)}]
    return answer(parts, finish, None if model == "no-usage" else USAGE, model)


def chunks(model: str, body: dict[str, Any], words: Sequence[str]) -> Iterator[dict[str, Any]]:
    if model == "blocked":
        yield blocked(model)
        return
    parts, finish = pieces(model, body, words)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        so_far = {"promptTokenCount": 1000, "candidatesTokenCount": number + 1, "totalTokenCount": 1001 + number}
        usage = None if model == "no-usage" else USAGE if last else so_far
        yield answer([part], finish if last else None, usage, model)


def results(body: dict[str, Any]) -> list[str]:
    """What functions have returned, in words."""
    parts = [part for content in body.get("contents", ()) for part in content.get("parts", ())]
    responses = [part["functionResponse"]["response"] for part in parts if "functionResponse" in part]
    return [str(next(iter(response.values()))) for response in responses]


def refusal(model: str, body: dict[str, Any]) -> str:
    """What Gemini 3 says of a conversation whose first call of a step has lost its signature; empty if it has not."""
    if model != "signing":
        return ""
    for role, contents in itertools.groupby(body.get("contents", ()), lambda content: content.get("role")):
        parts = [part for content in contents for part in content.get("parts", ())]
        calls = [part for part in parts if "functionCall" in part and role == "model"]
        given = calls[0].get("thoughtSignature", "") if calls else UNSIGNED
        if given != UNSIGNED and given.replace("-", "+").replace("_", "/") != SIGNATURE:
            return "Function call is missing a thought_signature in functionCall parts."
        if any(part.get("thoughtSignature") for part in calls[1:]):
            return "Corrupted thought signature."
    return ""
