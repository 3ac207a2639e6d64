"""Tasks of one call, over every server: where Code Mode helps least."""

from benchmarks.token_savings.suites import own_data as data
from benchmarks.token_savings.suites.own_tasks.making import (
    HOME,
    as_lines,
    call,
    change,
    holds,
    query,
    read,
    says,
    single,
    write,
)

_NORWAY = sum(country == "Norway" for _, _, country in data.CUSTOMERS)
_PAID = sum(amount for _, _, amount, status in data.ORDERS if status == "paid")

TASKS = (
    single(
        "write-note",
        f"Put the text 'Back on Monday.' into a new file {HOME}/notes/away.txt.",
        write("notes/away.txt", "Back on Monday."),
        "I wrote notes/away.txt.",
        holds(lambda desk: desk.read("notes/away.txt").strip(), "Back on Monday."),
    ),
    single(
        "move-file",
        f"Rename {HOME}/manifest.txt to {HOME}/manifest-old.txt.",
        call("filesystem", "move_file", source=f"{HOME}/manifest.txt", destination=f"{HOME}/manifest-old.txt"),
        "manifest.txt is now manifest-old.txt.",
        holds(
            lambda desk: (desk.read("manifest.txt"), as_lines("manifest-old.txt")(desk)),
            ("", data.MANIFEST),
        ),
    ),
    single(
        "read-config",
        f"Which port does the service in {HOME}/config/login.json use?",
        read("config/login.json"),
        f"It uses port {data.CONFIGS['login']['port']}.",
        says(data.CONFIGS["login"]["port"]),
    ),
    single(
        "ship-order",
        "Set the status of order 17 to 'shipped' in the database.",
        change("update orders set status = 'shipped' where id = 17"),
        "Order 17 is shipped.",
        holds(lambda desk: desk.rows("select status from orders where id = 17"), [("shipped",)]),
    ),
    single(
        "count-norway",
        "How many customers in the database are from Norway?",
        query("select count(*) as n from customers where country = 'Norway'"),
        f"{_NORWAY} customers are from Norway.",
        says(_NORWAY),
    ),
    single(
        "sum-paid",
        "What do all paid orders in the database amount to?",
        query("select sum(amount) as total from orders where status = 'paid'"),
        f"Paid orders amount to {_PAID}.",
        says(_PAID),
    ),
    single(
        "observe",
        "Remember in the knowledge graph that Ada 'moved to Oslo'.",
        call("memory", "add_observations", observations=[{"entityName": "Ada", "contents": ["moved to Oslo"]}]),
        "Noted: Ada moved to Oslo.",
        holds(lambda desk: "moved to Oslo" in desk.observations("Ada"), True),
    ),
    single(
        "convert-time",
        "When it is 09:00 in Tokyo, what time is it in Kolkata?",
        call("time", "convert_time", source_timezone="Asia/Tokyo", time="09:00", target_timezone="Asia/Kolkata"),
        "It is 05:30 in Kolkata.",
        says("05:30"),
    ),
    single(
        "write-cell",
        f"Write 77 into cell B2 of the sheet Plan in {HOME}/budget.xlsx.",
        call("excel", "write_range", path=f"{HOME}/budget.xlsx", sheet="Plan", at="B2", rows=[[77]]),
        "B2 is 77.",
        holds(lambda desk: desk.sheet("budget.xlsx", "Plan")[1][1], 77),
    ),
    single(
        "create-branch",
        f"Create a branch 'discounts' in the repository {HOME}/repo, starting from main.",
        call("git", "git_create_branch", repo_path=f"{HOME}/repo", branch_name="discounts", base_branch="main"),
        "The branch discounts is there.",
        holds(lambda desk: "discounts" in desk.git("branch", "--list", "discounts"), True),
    ),
    single(
        "new-document",
        f"Create an empty Word document {HOME}/report.docx with the title 'Report' by 'Ada'.",
        call("word", "create_document", filename=f"{HOME}/report.docx", title="Report", author="Ada"),
        "report.docx is there.",
        holds(lambda desk: "report.docx" in desk.names("."), True),
    ),
    single(
        "set-key",
        "Set the Redis key 'maintenance' to 'on'.",
        call("redis", "set", key="maintenance", value="on"),
        "maintenance is on.",
        holds(lambda desk: desk.redis and desk.redis.run("GET", "maintenance"), "on"),
    ),
)
