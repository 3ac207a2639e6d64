"""Runs in an environment of its own that has any-llm, and not mcpgate: asks models through any-llm. Reads cases as JSON
from its standard input, and writes what any-llm made of each answer."""

import json
import sys
from typing import Any


def ask(case: dict[str, Any]) -> Any:
    import any_llm

    provider, how = case["provider"], {"api_key": case["key"], "api_base": case["base"]}
    if provider == "bedrock":
        how = {"api_base": case["base"]}
    if case["api"] == "messages":
        return any_llm.api.messages(provider=provider, **how, **case["body"]).model_dump(mode="json", exclude_none=True)
    if case["api"] == "embeddings":
        body = {**case["body"], "inputs": case["body"]["input"]}
        del body["input"]
        return any_llm.embedding(provider=provider, **how, **body).model_dump(mode="json", exclude_none=True)
    answer = any_llm.completion(provider=provider, **how, **case["body"])
    if not case["body"].get("stream"):
        return answer.model_dump(mode="json", exclude_none=True)
    return [chunk.model_dump(mode="json", exclude_none=True) for chunk in answer]


if __name__ == "__main__":
    answers = []
    for one in json.load(sys.stdin):
        try:
            answers.append({"answer": ask(one)})
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {str(error)[:500]}"})
    json.dump(answers, sys.stdout)
