# methods of strings
# result: [["Hello", "World", "hello again"], 2, "Hello, World; Hello Again", ["key", "value=more"], "..report", "00042", ["one", "two", "three"], [true, true, false, true], ["a,b", "c"], "Snake case name"]
line = "  Hello, World; hello again  "
clean = line.strip()
parts = [part.strip() for part in clean.replace(";", ",").split(",")]
head, _, tail = "key=value=more".partition("=")
[
    parts,
    clean.lower().count("hello"),
    clean.title(),
    [head, tail],
    "report.csv".removesuffix(".csv").rjust(8, "."),
    "42".zfill(5),
    "one\ntwo\r\nthree".splitlines(),
    ["x1".isalnum(), "12".isdigit(), "Ab".islower(), "abc".startswith(("x", "ab"))],
    "a,b,c".rsplit(",", 1),
    "snake_case_name".replace("_", " ").capitalize(),
]
