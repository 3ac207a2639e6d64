"""Tasks over many files, or one large one."""

import json
from collections import Counter

from benchmarks.token_savings.suites import own_data as data
from benchmarks.token_savings.suites.own_tasks.making import (
    HOME,
    all_of,
    as_json,
    as_lines,
    call,
    holds,
    listing,
    read,
    read_all,
    says,
    task,
    write,
)

_SALES_FILES = [f"sales/{month}.csv" for month in data.SALES]
_SALES_TOTAL = sum(row[3] for rows in data.SALES.values() for row in rows)
_BY_REGION = {
    region: sum(row[3] for rows in data.SALES.values() for row in rows if row[1] == region) for region in data.REGIONS
}
_WEAK = [name for name, config in data.CONFIGS.items() if config["retries"] < 3]
_TODOS = [todo for _, todos in data.NOTES.values() for todo in todos]
_ADAS = [name for name, (owner, _) in data.NOTES.items() if owner == "Ada"]
_ERRORS = Counter(module for _, level, module, _ in data.LOG if level == "ERROR")
_WORST = _ERRORS.most_common(1)[0]
_ERROR_LINES = [",".join((at, module)) for at, level, module, _ in data.LOG if level == "ERROR"]
_FOUND = [name for name in data.MANIFEST if name in data.FILES]
_MISSING = [name for name in data.MANIFEST if name not in data.FILES]
_INVOICE_FILES = [f"inbox/invoice-{number}.txt" for number in data.INVOICES]
_FOUND_TOTAL = f"{sum(data.INVOICES[int(name[-8:-4])][1] for name in _FOUND):.2f}"


def _owner_line(name: str, owner: str) -> str:
    return data.note_text(name).replace("Owner: Ada", f"Owner: {owner}")


TASKS = (
    task(
        "sum-sales",
        "loop large-result",
        f"Add up the column amount of all CSV files in {HOME}/sales. Just tell me the total.",
        [[listing("sales")], [read_all(_SALES_FILES)]],
        f"""
import csv
total = 0
for month in range(1, 13):
    text = filesystem.read_text_file(path=f"{HOME}/sales/2025-{{month:02}}.csv")["content"]
    total += sum(int(row["amount"]) for row in csv.DictReader(text.splitlines()))
total
""",
        f"The total is {_SALES_TOTAL}.",
        says(_SALES_TOTAL),
    ),
    task(
        "sales-by-region",
        "loop large-result",
        f"Write {HOME}/regions.json: an object with the year's sales (amount) by region, from the CSV files in "
        f"{HOME}/sales.",
        [[listing("sales")], [read_all(_SALES_FILES)], [write("regions.json", json.dumps(_BY_REGION))]],
        f"""
import csv, json
from collections import Counter
totals = Counter()
for month in range(1, 13):
    text = filesystem.read_text_file(path=f"{HOME}/sales/2025-{{month:02}}.csv")["content"]
    for row in csv.DictReader(text.splitlines()):
        totals[row["region"]] += int(row["amount"])
filesystem.write_file(path="{HOME}/regions.json", content=json.dumps(totals))
totals
""",
        "regions.json is written.",
        holds(as_json("regions.json"), _BY_REGION),
    ),
    task(
        "raise-retries",
        "loop conditional",
        f"Every service configured in {HOME}/config that has fewer than 3 retries must get exactly 3. Change nothing "
        "else.",
        [
            [listing("config")],
            [read_all(f"config/{name}.json" for name in data.CONFIGS)],
            [
                call(
                    "filesystem",
                    "edit_file",
                    path=f"{HOME}/config/{name}.json",
                    edits=[{"oldText": f'"retries": {data.CONFIGS[name]["retries"]}', "newText": '"retries": 3'}],
                )
                for name in _WEAK
            ],
        ],
        f"""
import json
changed = []
for line in filesystem.list_directory(path="{HOME}/config")["content"].splitlines():
    path = "{HOME}/config/" + line.split(" ", 1)[1]
    retries = json.loads(filesystem.read_text_file(path=path)["content"])["retries"]
    if retries < 3:
        edit = {{"oldText": f'"retries": {{retries}}', "newText": '"retries": 3'}}
        filesystem.edit_file(path=path, edits=[edit])
        changed.append(path)
len(changed)
""",
        f"{len(_WEAK)} services got 3 retries.",
        holds(
            lambda desk: {name: json.loads(desk.read(f"config/{name}.json")) for name in data.CONFIGS},
            {name: {**config, "retries": max(3, config["retries"])} for name, config in data.CONFIGS.items()},
        ),
    ),
    task(
        "collect-todos",
        "loop large-result",
        f"Collect the text after 'TODO: ' of every such line of the notes in {HOME}/notes into {HOME}/todo.txt, one a "
        "line, in the order of the notes' names.",
        [
            [listing("notes")],
            [read_all(f"notes/{name}.md" for name in data.NOTES)],
            [write("todo.txt", "\n".join(_TODOS))],
        ],
        f"""
todos = []
for line in sorted(filesystem.list_directory(path="{HOME}/notes")["content"].splitlines()):
    text = filesystem.read_text_file(path="{HOME}/notes/" + line.split(" ", 1)[1])["content"]
    todos += [line[6:] for line in text.splitlines() if line.startswith("TODO: ")]
filesystem.write_file(path="{HOME}/todo.txt", content="\\n".join(todos))
len(todos)
""",
        f"todo.txt has {len(_TODOS)} lines.",
        holds(as_lines("todo.txt"), _TODOS),
    ),
    task(
        "hand-over-notes",
        "loop conditional large-result",
        f"Ada leaves: in every note in {HOME}/notes with the line 'Owner: Ada', make it 'Owner: Ben'.",
        [
            [listing("notes")],
            [read_all(f"notes/{name}.md" for name in data.NOTES)],
            [
                call(
                    "filesystem",
                    "edit_file",
                    path=f"{HOME}/notes/{name}.md",
                    edits=[{"oldText": "Owner: Ada", "newText": "Owner: Ben"}],
                )
                for name in _ADAS
            ],
        ],
        f"""
changed = 0
for line in filesystem.list_directory(path="{HOME}/notes")["content"].splitlines():
    path = "{HOME}/notes/" + line.split(" ", 1)[1]
    if "Owner: Ada" in filesystem.read_text_file(path=path)["content"]:
        filesystem.edit_file(path=path, edits=[{{"oldText": "Owner: Ada", "newText": "Owner: Ben"}}])
        changed += 1
changed
""",
        f"{len(_ADAS)} notes are Ben's now.",
        holds(
            lambda desk: {name: desk.read(f"notes/{name}.md") for name in data.NOTES},
            {name: _owner_line(name, "Ben") for name in data.NOTES},
        ),
    ),
    task(
        "archive-inbox",
        "loop",
        f"Move all files of {HOME}/inbox into a new folder {HOME}/archive.",
        [
            [listing("inbox"), call("filesystem", "create_directory", path=f"{HOME}/archive")],
            [
                call(
                    "filesystem",
                    "move_file",
                    source=f"{HOME}/{name}",
                    destination=f"{HOME}/{name.replace('inbox', 'archive')}",
                )
                for name in _INVOICE_FILES
            ],
        ],
        f"""
filesystem.create_directory(path="{HOME}/archive")
names = [line.split(" ", 1)[1] for line in filesystem.list_directory(path="{HOME}/inbox")["content"].splitlines()]
for name in names:
    filesystem.move_file(source=f"{HOME}/inbox/{{name}}", destination=f"{HOME}/archive/{{name}}")
len(names)
""",
        f"{len(_INVOICE_FILES)} files are in archive.",
        holds(
            lambda desk: (desk.names("inbox"), desk.names("archive")),
            ([], sorted(name.removeprefix("inbox/") for name in _INVOICE_FILES)),
        ),
    ),
    task(
        "worst-module",
        "aggregate large-result",
        f"Which module has the most lines of level ERROR in {HOME}/logs/app.log (time, level, module, message), and "
        "how many?",
        [[read("logs/app.log")]],
        f"""
from collections import Counter
lines = filesystem.read_text_file(path="{HOME}/logs/app.log")["content"].splitlines()
Counter(line.split()[2] for line in lines if line.split()[1] == "ERROR").most_common(1)
""",
        f"{_WORST[0]}, with {_WORST[1]} errors.",
        says(*_WORST),
    ),
    task(
        "extract-errors",
        "aggregate large-result",
        f"From {HOME}/logs/app.log (time, level, module, message) write time and module of each line of level ERROR, "
        f"with a comma between them, to {HOME}/errors.csv, without a header.",
        [[read("logs/app.log")], [write("errors.csv", "\n".join(_ERROR_LINES))]],
        f"""
lines = [line.split() for line in filesystem.read_text_file(path="{HOME}/logs/app.log")["content"].splitlines()]
errors = [f"{{line[0]}},{{line[2]}}" for line in lines if line[1] == "ERROR"]
filesystem.write_file(path="{HOME}/errors.csv", content="\\n".join(errors))
len(errors)
""",
        f"errors.csv has {len(_ERROR_LINES)} lines.",
        holds(as_lines("errors.csv"), _ERROR_LINES),
    ),
    task(
        "missing-files",
        "loop error-recovery",
        f"{HOME}/manifest.txt names files below {HOME}. Add up the totals of those that are there, and write the names "
        f"of those that are missing to {HOME}/missing.txt, one a line. Tell me the sum.",
        [
            [read("manifest.txt")],
            [read_all(data.MANIFEST)],
            [write("missing.txt", "\n".join(_MISSING))],
        ],
        f"""
total, missing = 0, []
for name in filesystem.read_text_file(path="{HOME}/manifest.txt")["content"].split():
    try:
        text = filesystem.read_text_file(path=f"{HOME}/{{name}}")["content"]
        total += float(text.split("Total: ")[1])
    except ToolError:
        missing.append(name)
filesystem.write_file(path="{HOME}/missing.txt", content="\\n".join(missing))
round(total, 2)
""",
        f"The sum is {_FOUND_TOTAL}; {len(_MISSING)} files are missing.",
        all_of(says(_FOUND_TOTAL), holds(as_lines("missing.txt"), _MISSING)),
    ),
)
