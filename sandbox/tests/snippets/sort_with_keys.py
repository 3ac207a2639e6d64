# sorting with keys, and with more than one
# result: [["Ada", "Cy", "Bob"], ["Bob", "Cy", "Ada"], "Cy"]
people = [
    {"name": "Ada", "age": 36, "team": "b"},
    {"name": "Bob", "age": 25, "team": "a"},
    {"name": "Cy", "age": 36, "team": "a"},
]
by_age = sorted(people, key=lambda p: (-p["age"], p["name"]))
people.sort(key=lambda p: p["team"])
oldest = max(people, key=lambda p: p["age"])
[[p["name"] for p in by_age], [p["name"] for p in people], oldest["name"]]
