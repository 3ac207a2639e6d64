"""The data on the desk of the own tasks: invented, and the same on every machine."""

import json
import random
from typing import Any

_chance = random.Random(5)

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gwen", "Hugo", "Iris", "Jon", "Kim", "Lea")
COUNTRIES = ("Norway", "Chile", "Japan", "Kenya", "Italy")
REGIONS = ("north", "south", "east", "west")
PRODUCTS = ("lamp", "chair", "desk", "shelf")
MODULES = ("billing", "search", "login", "mail", "export")
TEAMS = ("Design", "Sales", "Support", "Platform", "Legal", "People", "Data", "Mobile")
STATUSES = ("open", "paid", "shipped")

# Files

SALES: dict[str, list[tuple[str, str, str, int]]] = {
    f"2025-{month:02}": [
        (f"2025-{month:02}-{_chance.randint(1, 28):02}", _chance.choice(REGIONS), _chance.choice(PRODUCTS), amount)
        for amount in (_chance.randint(10, 900) for _ in range(60))
    ]
    for month in range(1, 13)
}
LOG: list[tuple[str, str, str, str]] = [
    (
        f"2026-01-{1 + at // 60:02}T{at % 24:02}:{_chance.randint(0, 59):02}:00",
        _chance.choices(("INFO", "WARN", "ERROR"), (80, 14, 6))[0],
        _chance.choice(MODULES),
        f"request {_chance.randint(100000, 999999)} took {_chance.randint(2, 950)} ms",
    )
    for at in range(1500)
]
CONFIGS: dict[str, dict[str, Any]] = {
    name: {"service": name, "port": 8000 + at, "retries": _chance.randint(0, 5), "timeout_s": 5 * (at + 1)}
    for at, name in enumerate((*MODULES, "cache", "queue", "report"))
}
NOTES: dict[str, tuple[str, list[str]]] = {
    f"note-{number:02}": (
        _chance.choice(NAMES[:4]),
        [f"call {_chance.choice(NAMES)} about the {_chance.choice(PRODUCTS)}" for _ in range(_chance.randint(0, 2))],
    )
    for number in range(1, 25)
}
INVOICES: dict[int, tuple[str, float]] = {
    1000 + at: (_chance.choice(NAMES), _chance.randint(500, 90000) / 100) for at in range(1, 21)
}
MANIFEST = [f"inbox/invoice-{number}.txt" for number in (1001, 1004, 1050, 1007, 1077, 1012, 1099)]


def config_text(name: str) -> str:
    return json.dumps(CONFIGS[name], indent=2) + "\n"


def note_text(name: str) -> str:
    owner, todos = NOTES[name]
    filler = f"{name} was written down in a meeting, and says little else that anybody needs to remember.\n" * 6
    return f"# {name}\nOwner: {owner}\n\n{filler}" + "".join(f"TODO: {todo}\n" for todo in todos)


FILES: dict[str, str] = {
    **{
        f"sales/{month}.csv": "date,region,product,amount\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
        for month, rows in SALES.items()
    },
    "logs/app.log": "".join(" ".join(line) + "\n" for line in LOG),
    **{f"config/{name}.json": config_text(name) for name in CONFIGS},
    **{f"notes/{name}.md": note_text(name) for name in NOTES},
    **{
        f"inbox/invoice-{number}.txt": f"Invoice {number}\nCustomer: {name}\nTotal: {total:.2f}\n"
        for number, (name, total) in INVOICES.items()
    },
    "manifest.txt": "\n".join(MANIFEST) + "\n",
}

# Database

SCHEMA = """
create table customers (id integer primary key, name text, country text);
create table orders (id integer primary key, customer_id integer, amount integer, status text);
create table stock (sku text primary key, quantity integer, reorder_at integer);
"""
CUSTOMERS = [(at + 1, name, _chance.choice(COUNTRIES)) for at, name in enumerate(NAMES)]
ORDERS = [
    (number, _chance.randint(1, len(NAMES)), _chance.randint(5, 500), _chance.choice(STATUSES))
    for number in range(1, 401)
]
STOCK = [(f"sku-{number:02}", _chance.randint(0, 60), 20) for number in range(1, 31)]
TABLES: dict[str, list[tuple[Any, ...]]] = {"customers": [*CUSTOMERS], "orders": [*ORDERS], "stock": [*STOCK]}

# Repository, knowledge graph, workbook, Redis

COMMITS: list[tuple[str, dict[str, str]]] = [
    ("Start", {"README.md": "# Shop\n"}),
    ("Add the cart", {"cart.py": "TOTAL = 0\n"}),
    ("Add the prices", {"prices.py": "LAMP = 20\n"}),
    ("Fix the cart's total", {"cart.py": "TOTAL = 1\n"}),
    ("Raise the lamp's price", {"prices.py": "LAMP = 22\n"}),
]
GRAPH: list[dict[str, Any]] = [
    *(
        {
            "type": "entity",
            "name": name,
            "entityType": "person" if at % 3 else "contractor",
            "observations": [f"lives in {COUNTRIES[at % 5]}", f"likes the {PRODUCTS[at % 4]}"],
        }
        for at, name in enumerate(NAMES)
    ),
    *(
        {"type": "relation", "from": name, "to": NAMES[at + 1], "relationType": "works with"}
        for at, name in enumerate(NAMES[:-1])
    ),
]
PLAN = {team: [_chance.randint(10, 99) for _ in range(4)] for team in TEAMS}
ACTUAL = {team: [figure + _chance.randint(-8, 8) for figure in figures] for team, figures in PLAN.items()}
WORKBOOK: dict[str, list[list[Any]]] = {
    sheet: [["Team", "Q1", "Q2", "Q3", "Q4"], *([team, *row] for team, row in figures.items())]
    for sheet, figures in (("Plan", PLAN), ("Actual", ACTUAL))
}
USERS = {
    f"user:{number}": {
        "name": f"{_chance.choice(NAMES)}{number}",
        "plan": _chance.choice(("free", "pro")),
        "visits": _chance.randint(1, 99),
    }
    for number in range(1, 31)
}
REDIS_COMMANDS = [["HSET", key, *(str(part) for pair in user.items() for part in pair)] for key, user in USERS.items()]
