"""Tasks over two or more servers, or over one whose calls build on each other."""

import json
from collections import Counter

from benchmarks.token_savings.suites import own_data as data
from benchmarks.token_savings.suites.own_tasks.making import (
    HOME,
    all_of,
    as_json,
    as_lines,
    call,
    change,
    holds,
    listing,
    query,
    read_all,
    task,
    write,
)

_INVOICE_ROWS = [(number, name, total) for number, (name, total) in data.INVOICES.items()]
_LOW = [(sku, quantity) for sku, quantity, reorder_at in data.STOCK if quantity < reorder_at]
_OPEN = Counter[str]()
for _, _customer, _amount, _status in data.ORDERS:
    if _status == "open":
        _OPEN[data.NAMES[_customer - 1]] += _amount
_DEBTORS = sorted(name for name, total in _OPEN.items() if total > 2000)
_OVERSPENT = [team for team in data.TEAMS if sum(data.ACTUAL[team]) > sum(data.PLAN[team])]
_MESSAGES = [message for message, _ in reversed(data.COMMITS)]
_BY_COUNTRY = sorted(Counter(country for _, _, country in data.CUSTOMERS).items())
_QUARTER = {
    month: sum(row[3] for row in data.SALES[month] if row[2] == "lamp") for month in ("2025-01", "2025-02", "2025-03")
}
_TIMES = {"Asia/Kolkata": "05:30", "Asia/Dubai": "04:00", "Africa/Nairobi": "03:00", "Asia/Singapore": "08:00"}
_FILE_NAMES = {"discounts.py": "RATE = 0.1\n", "taxes.py": "RATE = 0.2\n", "shipping.py": "FEE = 4\n"}
_COUNTRY_OF = {name: country for _, name, country in data.CUSTOMERS}
_OPEN_QUERY = (
    "select c.name, sum(o.amount) as total from orders o join customers c on c.id = o.customer_id "
    "where o.status = 'open' group by c.name having total > 2000 order by c.name"
)
_COUNTRY_QUERY = "select country, count(*) as n from customers group by country order by country"
_LOW_QUERY = "select sku, quantity from stock where quantity < reorder_at order by sku"
_VALUES = ", ".join(f"({number}, '{name}', {total})" for number, name, total in _INVOICE_ROWS)
_CREATE_INVOICES = "create table invoices (number integer primary key, customer text, total real)"

TASKS = (
    task(
        "invoices-to-table",
        "loop join",
        f"Make a table invoices (number integer primary key, customer text, total real) in the database, with a row "
        f"for each file in {HOME}/inbox.",
        [
            [listing("inbox"), call("sqlite", "create_table", query=_CREATE_INVOICES)],
            [read_all(f"inbox/invoice-{number}.txt" for number in data.INVOICES)],
            [change(f"insert into invoices values {_VALUES}")],
        ],
        f"""
sqlite.create_table(query="{_CREATE_INVOICES}")
values = []
for line in filesystem.list_directory(path="{HOME}/inbox")["content"].splitlines():
    text = filesystem.read_text_file(path="{HOME}/inbox/" + line.split(" ", 1)[1])["content"]
    number, name, total = [row.split(" ", 1)[1] for row in text.splitlines()]
    values.append(f"({{number}}, '{{name}}', {{total}})")
sqlite.write_query(query=f"insert into invoices values {{', '.join(values)}}")
""",
        f"The table invoices has {len(_INVOICE_ROWS)} rows.",
        holds(lambda desk: desk.rows("select number, customer, total from invoices order by number"), _INVOICE_ROWS),
    ),
    task(
        "remember-debtors",
        "join conditional",
        "Whoever has open orders in the database for more than 2000 together: add the observation 'owes TOTAL', with "
        "the total, to that person in the knowledge graph.",
        [
            [query(_OPEN_QUERY)],
            [
                call(
                    "memory",
                    "add_observations",
                    observations=[{"entityName": name, "contents": [f"owes {_OPEN[name]}"]} for name in _DEBTORS],
                )
            ],
        ],
        f"""
import json
rows = json.loads(sqlite.read_query(query="{_OPEN_QUERY}").replace("'", '"'))
observations = [{{"entityName": row["name"], "contents": [f"owes {{row['total']}}"]}} for row in rows]
memory.add_observations(observations=observations)
len(rows)
""",
        f"{len(_DEBTORS)} people owe more than 2000.",
        holds(
            lambda desk: {name: [text for text in desk.observations(name) if "owes" in text] for name in data.NAMES},
            {name: [f"owes {_OPEN[name]}"] if name in _DEBTORS else [] for name in data.NAMES},
        ),
    ),
    task(
        "queue-reorders",
        "loop join",
        "Put the sku of every article in the database's table stock whose quantity is below its reorder_at into the "
        "Redis set 'reorder'.",
        [[query(_LOW_QUERY)], [call("redis", "sadd", name="reorder", value=sku) for sku, _ in _LOW]],
        f"""
import json
rows = json.loads(sqlite.read_query(query="{_LOW_QUERY}").replace("'", '"'))
for row in rows:
    redis.sadd(name="reorder", value=row["sku"])
len(rows)
""",
        f"{len(_LOW)} articles are to be reordered.",
        holds(
            lambda desk: desk.redis and sorted(desk.redis.run("SMEMBERS", "reorder")), sorted(sku for sku, _ in _LOW)
        ),
    ),
    task(
        "overspent",
        "join",
        f"Compare the sheets Plan and Actual of {HOME}/budget.xlsx: write the teams whose four quarters came to more "
        f"than planned to {HOME}/overspent.txt, one a line, in the sheet's order.",
        [
            [call("excel", "read_range", path=f"{HOME}/budget.xlsx", sheet=sheet) for sheet in ("Plan", "Actual")],
            [write("overspent.txt", "\n".join(_OVERSPENT))],
        ],
        f"""
plan, actual = [
    excel.read_range(path="{HOME}/budget.xlsx", sheet=sheet)["values"][1:] for sheet in ("Plan", "Actual")
]
over = [done[0] for wanted, done in zip(plan, actual) if sum(done[1:]) > sum(wanted[1:])]
filesystem.write_file(path="{HOME}/overspent.txt", content="\\n".join(over))
over
""",
        f"{len(_OVERSPENT)} teams spent more than planned.",
        holds(as_lines("overspent.txt"), _OVERSPENT),
    ),
    task(
        "countries-to-excel",
        "join",
        f"Add a sheet Countries to {HOME}/budget.xlsx, with the header Country, Customers and a row with the number of "
        "customers in the database for each country, in alphabetical order.",
        [
            [
                query(_COUNTRY_QUERY),
                call("excel", "create_sheet", path=f"{HOME}/budget.xlsx", new_name="Countries"),
            ],
            [
                call(
                    "excel",
                    "write_range",
                    path=f"{HOME}/budget.xlsx",
                    sheet="Countries",
                    at="A1",
                    rows=[["Country", "Customers"], *map(list, _BY_COUNTRY)],
                )
            ],
        ],
        f"""
import json
found = json.loads(sqlite.read_query(query="{_COUNTRY_QUERY}").replace("'", '"'))
excel.create_sheet(path="{HOME}/budget.xlsx", new_name="Countries")
rows = [["Country", "Customers"], *[[row["country"], row["n"]] for row in found]]
excel.write_range(path="{HOME}/budget.xlsx", sheet="Countries", at="A1", rows=rows)
""",
        f"The sheet Countries has {len(_BY_COUNTRY)} countries.",
        holds(lambda desk: desk.sheet("budget.xlsx", "Countries"), [["Country", "Customers"], *map(list, _BY_COUNTRY)]),
    ),
    task(
        "changelog",
        "join",
        f"Write the messages of all commits on main of {HOME}/repo to {HOME}/repo/CHANGES.md, newest first, each as "
        "'- MESSAGE', and commit that file with the message 'Add the changes'.",
        [
            [call("git", "git_log", repo_path=f"{HOME}/repo", max_count=100)],
            [write("repo/CHANGES.md", "".join(f"- {message}\n" for message in _MESSAGES))],
            [call("git", "git_add", repo_path=f"{HOME}/repo", files=["CHANGES.md"])],
            [call("git", "git_commit", repo_path=f"{HOME}/repo", message="Add the changes")],
        ],
        f"""
log = git.git_log(repo_path="{HOME}/repo", max_count=100)
messages = [line.split(": ", 1)[1] for line in log.splitlines() if line.startswith("Message: ")]
text = "".join(f"- {{message}}\\n" for message in messages)
filesystem.write_file(path="{HOME}/repo/CHANGES.md", content=text)
git.git_add(repo_path="{HOME}/repo", files=["CHANGES.md"])
git.git_commit(repo_path="{HOME}/repo", message="Add the changes")
""",
        f"CHANGES.md lists {len(_MESSAGES)} commits and is committed.",
        all_of(
            holds(
                lambda desk: desk.git("show", "HEAD:CHANGES.md").splitlines(),
                [f"- {message}" for message in _MESSAGES],
            ),
            holds(lambda desk: desk.git("log", "-1", "--format=%s").strip(), "Add the changes"),
        ),
    ),
    task(
        "commit-each",
        "loop",
        f"Add these files to the repository {HOME}/repo, each in a commit of its own with the message 'Add NAME': "
        + "; ".join(f"{name} with the line '{text.strip()}'" for name, text in _FILE_NAMES.items()),
        [
            [write(f"repo/{name}", text) for name, text in _FILE_NAMES.items()],
            *(
                [each]
                for name in _FILE_NAMES
                for each in (
                    call("git", "git_add", repo_path=f"{HOME}/repo", files=[name]),
                    call("git", "git_commit", repo_path=f"{HOME}/repo", message=f"Add {name}"),
                )
            ),
        ],
        f"""
files = {_FILE_NAMES!r}
for name, text in files.items():
    filesystem.write_file(path=f"{HOME}/repo/{{name}}", content=text)
    git.git_add(repo_path="{HOME}/repo", files=[name])
    git.git_commit(repo_path="{HOME}/repo", message=f"Add {{name}}")
""",
        "Three commits are made.",
        all_of(
            holds(
                lambda desk: desk.git("log", "-3", "--reverse", "--format=%s").splitlines(),
                [f"Add {name}" for name in _FILE_NAMES],
            ),
            holds(lambda desk: desk.git("show", "HEAD:taxes.py").strip(), "RATE = 0.2"),
        ),
    ),
    task(
        "word-report",
        "join",
        f"Create a Word document {HOME}/countries.docx titled 'Countries' by 'Ada' with the heading 'Customers by "
        "country' and a table of country and number of customers in the database, alphabetically, with the header "
        "Country, Customers.",
        [
            [
                query(_COUNTRY_QUERY),
                call("word", "create_document", filename=f"{HOME}/countries.docx", title="Countries", author="Ada"),
            ],
            [call("word", "add_heading", filename=f"{HOME}/countries.docx", text="Customers by country", level=1)],
            [
                call(
                    "word",
                    "add_table",
                    filename=f"{HOME}/countries.docx",
                    rows=len(_BY_COUNTRY) + 1,
                    cols=2,
                    data=[["Country", "Customers"], *([name, str(n)] for name, n in _BY_COUNTRY)],
                )
            ],
        ],
        f"""
import json
rows = json.loads(sqlite.read_query(query="{_COUNTRY_QUERY}").replace("'", '"'))
table = [["Country", "Customers"], *[[row["country"], str(row["n"])] for row in rows]]
path = "{HOME}/countries.docx"
word.create_document(filename=path, title="Countries", author="Ada")
word.add_heading(filename=path, text="Customers by country", level=1)
word.add_table(filename=path, rows=len(table), cols=2, data=table)
""",
        "countries.docx is written.",
        holds(
            lambda desk: desk.document("countries.docx"),
            ["Customers by country", "Country", "Customers", *(str(part) for pair in _BY_COUNTRY for part in pair)],
        ),
    ),
    task(
        "countries-in-graph",
        "loop join",
        "Add the observation 'customer in COUNTRY', with the country of the database's table customers, to every "
        "person of the same name in the knowledge graph whose entity type is 'contractor'.",
        [
            [call("memory", "read_graph"), query("select name, country from customers")],
            [
                call(
                    "memory",
                    "add_observations",
                    observations=[
                        {"entityName": name, "contents": [f"customer in {_COUNTRY_OF[name]}"]}
                        for name in data.NAMES[::3]
                    ],
                )
            ],
        ],
        """
import json
rows = json.loads(sqlite.read_query(query="select name, country from customers").replace("'", '"'))
countries = {row["name"]: row["country"] for row in rows}
names = [found["name"] for found in memory.read_graph()["entities"] if found["entityType"] == "contractor"]
memory.add_observations(
    observations=[{"entityName": name, "contents": [f"customer in {countries[name]}"]} for name in names]
)
len(names)
""",
        f"{len(data.NAMES[::3])} contractors got their country.",
        holds(
            lambda desk: {
                name: [text for text in desk.observations(name) if "customer" in text] for name in data.NAMES
            },
            {name: [f"customer in {_COUNTRY_OF[name]}"] if at % 3 == 0 else [] for at, name in enumerate(data.NAMES)},
        ),
    ),
    task(
        "sheets-of-months",
        "loop join",
        f"Create {HOME}/sales.xlsx with one sheet for each CSV file in {HOME}/sales, named as the file is without "
        ".csv, holding what it holds.",
        [
            [listing("sales")],
            [call("excel", "create_workbook", path=f"{HOME}/sales.xlsx", sheets=list(data.SALES))],
            *(
                [
                    call(
                        "excel",
                        "import_csv",
                        path=f"{HOME}/sales.xlsx",
                        csv_path=f"{HOME}/sales/{month}.csv",
                        sheet=month,
                    )
                ]
                for month in data.SALES
            ),
        ],
        f"""
lines = filesystem.list_directory(path="{HOME}/sales")["content"].splitlines()
months = sorted(line.split(" ", 1)[1].removesuffix(".csv") for line in lines)
excel.create_workbook(path="{HOME}/sales.xlsx", sheets=months)
for month in months:
    excel.import_csv(path="{HOME}/sales.xlsx", csv_path=f"{HOME}/sales/{{month}}.csv", sheet=month)
len(months)
""",
        "sales.xlsx has 12 sheets.",
        holds(
            lambda desk: {
                month: [row[3] for row in desk.sheet("sales.xlsx", month)[1:]] for month in ("2025-01", "2025-12")
            },
            {month: [row[3] for row in data.SALES[month]] for month in ("2025-01", "2025-12")},
        ),
    ),
    task(
        "lamps-of-the-quarter",
        "join large-result",
        f"Make a table lamps (month text, amount integer) in the database with the sales of lamps by month for the "
        f"first quarter, from {HOME}/sales/2025-01.csv and the two after it.",
        [
            [
                read_all(f"sales/{month}.csv" for month in _QUARTER),
                call("sqlite", "create_table", query="create table lamps (month text, amount integer)"),
            ],
            [change(f"insert into lamps values {', '.join(map(str, _QUARTER.items()))}")],
        ],
        f"""
import csv
sqlite.create_table(query="create table lamps (month text, amount integer)")
values = []
for month in ("2025-01", "2025-02", "2025-03"):
    text = filesystem.read_text_file(path=f"{HOME}/sales/{{month}}.csv")["content"]
    amount = sum(int(row["amount"]) for row in csv.DictReader(text.splitlines()) if row["product"] == "lamp")
    values.append(f"('{{month}}', {{amount}})")
sqlite.write_query(query=f"insert into lamps values {{', '.join(values)}}")
""",
        "The table lamps has three rows.",
        holds(lambda desk: desk.rows("select month, amount from lamps order by month"), list(_QUARTER.items())),
    ),
    task(
        "times-of-a-call",
        "loop join",
        f"Write {HOME}/times.json: an object with the local time (HH:MM) at 09:00 Tokyo time for each of the zones "
        f"{', '.join(_TIMES)}.",
        [
            [
                call("time", "convert_time", source_timezone="Asia/Tokyo", time="09:00", target_timezone=zone)
                for zone in _TIMES
            ],
            [write("times.json", json.dumps(_TIMES))],
        ],
        f"""
import json
times = {{}}
for zone in {list(_TIMES)!r}:
    found = time.convert_time(source_timezone="Asia/Tokyo", time="09:00", target_timezone=zone)
    times[zone] = found["target"]["datetime"][11:16]
filesystem.write_file(path="{HOME}/times.json", content=json.dumps(times))
times
""",
        "times.json is written.",
        holds(as_json("times.json"), _TIMES),
    ),
)
