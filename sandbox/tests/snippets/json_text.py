# JSON in and out
# result: [["a", "b"], "[{\"id\":1,\"tags\":[\"a\",\"b\"]},{\"id\":2,\"tags\":[\"ü\"]}]", "{\n  \"a\": [\n    1.5,\n    null\n  ],\n  \"b\": 1\n}", null, "not JSON", [{"n": 0, "name": "row 0"}]]
import json

text = '{"items": [{"id": 1, "tags": ["a", "b"]}, {"id": 2, "tags": []}], "next": null, "ok": true}'
data = json.loads(text)
tags = [tag for item in data["items"] for tag in item["tags"]]
data["items"][1]["tags"].append("ü")
dumped = json.dumps(data["items"], ensure_ascii=False, separators=(",", ":"))
pretty = json.dumps({"b": 1, "a": [1.5, None]}, indent=2, sort_keys=True)
try:
    json.loads("{broken")
except json.JSONDecodeError:
    problem = "not JSON"
[tags, dumped, pretty, data["next"], problem, json.loads(json.dumps(t.rows(count=1)))]
