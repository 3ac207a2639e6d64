# match: values, sequences, mappings, classes, guards
# result: ["nothing", "a truth", "a bit", "negative -5", "text of 5", "list: 1 and 2 more", "user Al, 1 other fields", "something else"]
def describe(value):
    match value:
        case None:
            return "nothing"
        case bool():
            return "a truth"
        case 0 | 1:
            return "a bit"
        case int(n) if n < 0:
            return f"negative {n}"
        case str() as text:
            return f"text of {len(text)}"
        case [first, *rest]:
            return f"list: {first} and {len(rest)} more"
        case {"type": "user", "name": name, **others}:
            return f"user {name}, {len(others)} other fields"
        case _:
            return "something else"


[describe(v) for v in [None, True, 1, -5, "hello", [1, 2, 3], {"type": "user", "name": "Al", "age": 3}, 2.5]]
