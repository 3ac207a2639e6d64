"""A suite of three small tasks over one server with two tools, and the server, over stdio."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOOLS = [
    {
        "name": "add-note",
        "description": "Keep a note. Returns how many there are.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
    {
        "name": "list_notes",
        "description": "Every note that was kept, in order.",
        "inputSchema": {"type": "object", "properties": {}},
    },
]


def serve(file: Path) -> None:
    """As much of an MCP server as the tasks need."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result: dict[str, Any]
        match message["method"]:
            case "initialize":
                version = message["params"]["protocolVersion"]
                info = {"name": "notes", "version": "1"}
                result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
            case "tools/list":
                result = {"tools": TOOLS}
            case "tools/call":
                result = {"content": [{"type": "text", "text": _call(file, message["params"])}]}
            case _:
                result = {}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)


def _call(file: Path, params: Mapping[str, Any]) -> str:
    notes = json.loads(file.read_text())
    if params["name"] == "add-note":
        notes.append(params["arguments"]["text"])
        file.write_text(json.dumps(notes))
        return json.dumps({"count": len(notes)})
    return json.dumps({"notes": notes})


class NotesWorld:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._file = folder / "notes.json"
        self.servers = {"notes": {"command": sys.executable, "args": [__file__, str(self._file)], "env": {}}}

    def begin(self, task: Any) -> None:
        self._file.write_text("[]")

    def verify(self, task: Any, answers: Sequence[str]) -> str:
        notes = json.loads(self._file.read_text())
        wanted = [call.arguments["text"] for turn in task.turns for call in turn.rounds[0]]
        return "" if notes == wanted else f"notes are {notes}, not {wanted}"

    def close(self) -> None:
        self._file.unlink()


class NotesSuite:
    name = "notes"

    def tasks(self) -> Sequence[Any]:
        from benchmarks.token_savings.task import Call, Task, Turn

        def turn(*texts: str) -> Turn:
            writes = [Call("notes", "add-note", {"text": text}) for text in texts]
            code = "\n".join(f"notes.add_note(text={text!r})" for text in texts) + "\nnotes.list_notes()['notes']"
            return Turn(
                f"Keep these notes: {', '.join(texts)}", [writes, [Call("notes", "list_notes", {})]], code, "Kept."
            )

        return [
            Task("notes/one", "notes", "1 call", ["notes"], [turn("milk")]),
            Task("notes/three", "notes", "2-4 calls", ["notes"], [turn("milk", "bread", "tea")]),
            Task("notes/turns", "notes", "2-4 calls", ["notes"], [turn("milk"), turn("bread")]),
        ]

    def open(self, folder: Path) -> NotesWorld:
        return NotesWorld(folder)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
