"""Tasks on one server: loops, figures and recovery from errors."""

from benchmarks.token_savings.suites import own_data as data
from benchmarks.token_savings.suites.own_tasks.making import HOME, call, change, holds, says, task, write

_VISITS = sum(user["visits"] for user in data.USERS.values() if user["plan"] == "pro")
_GOLD = sorted(key for key, user in data.USERS.items() if user["visits"] >= 80)
_CONTRACTORS = len(data.NAMES[::3])
_HASHES = [call("redis", "hgetall", name=key) for key in data.USERS]
_Q1 = sum(figures[0] for figures in data.ACTUAL.values())

TASKS = (
    task(
        "visits-of-pros",
        "loop aggregate",
        "Redis has hashes user:1 to user:30. How many visits do the users on the plan 'pro' have together?",
        [_HASHES],
        """
users = [redis.hgetall(name=f"user:{number}") for number in range(1, 31)]
sum(int(user["visits"]) for user in users if user["plan"] == "pro")
""",
        f"They have {_VISITS} visits.",
        says(_VISITS),
    ),
    task(
        "gold-users",
        "loop conditional",
        "Redis has hashes user:1 to user:30. Set the field plan to 'gold' for every user with 80 visits or more.",
        [_HASHES, [call("redis", "hset", name=key, key="plan", value="gold") for key in _GOLD]],
        """
gold = []
for number in range(1, 31):
    name = f"user:{number}"
    if int(redis.hgetall(name=name)["visits"]) >= 80:
        redis.hset(name=name, key="plan", value="gold")
        gold.append(name)
gold
""",
        f"{len(_GOLD)} users are gold.",
        holds(
            lambda desk: sorted(
                key for key in data.USERS if desk.redis and desk.redis.run("HGET", key, "plan") == "gold"
            ),
            _GOLD,
        ),
    ),
    task(
        "count-contractors",
        "aggregate",
        "How many entities of the type contractor are in the knowledge graph?",
        [[call("memory", "read_graph")]],
        """
sum(found["entityType"] == "contractor" for found in memory.read_graph()["entities"])
""",
        f"There are {_CONTRACTORS} contractors.",
        says(_CONTRACTORS),
    ),
    task(
        "sum-of-a-column",
        "aggregate",
        f"What do the teams' figures for Q1 in the sheet Actual of {HOME}/budget.xlsx come to?",
        [[call("excel", "read_range", path=f"{HOME}/budget.xlsx", sheet="Actual")]],
        f"""
sum(row[1] for row in excel.read_range(path="{HOME}/budget.xlsx", sheet="Actual")["values"][1:])
""",
        f"They come to {_Q1}.",
        says(_Q1),
    ),
    task(
        "folder-first",
        "error-recovery",
        f"Save the text 'draft' as {HOME}/drafts/2026/first.txt; make the folders if they are missing.",
        [
            [call("filesystem", "create_directory", path=f"{HOME}/drafts/2026")],
            [write("drafts/2026/first.txt", "draft")],
        ],
        f"""
path = "{HOME}/drafts/2026/first.txt"
try:
    filesystem.write_file(path=path, content="draft")
except ToolError:
    filesystem.create_directory(path="{HOME}/drafts/2026")
    filesystem.write_file(path=path, content="draft")
""",
        "first.txt is saved.",
        holds(lambda desk: desk.read("drafts/2026/first.txt").strip(), "draft"),
    ),
    task(
        "table-first",
        "error-recovery conditional",
        "Add a row ('visit', 1) to the database's table events (name text, n integer). Make it if there is none.",
        [
            [change("insert into events values ('visit', 1)")],
            [call("sqlite", "create_table", query="create table events (name text, n integer)")],
            [change("insert into events values ('visit', 1)")],
        ],
        """
insert = "insert into events values ('visit', 1)"
found = sqlite.write_query(query=insert)
if "no such table" in found:
    sqlite.create_table(query="create table events (name text, n integer)")
    found = sqlite.write_query(query=insert)
found
""",
        "The row is in events.",
        holds(lambda desk: desk.rows("select * from events"), [("visit", 1)]),
    ),
)
