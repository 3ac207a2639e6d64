# regular expressions: search, findall, sub, named groups
# result: [[{"day": "2026-01-05", "level": "ERROR", "text": "disk full"}, {"day": "2026-01-07", "level": "ERROR", "text": "timeout"}], [28, 110], "05.01. ERROR disk full (code 28)", "toCamelCase", ["bob", "site"], ["a", "b", "c"], true]
import re

text = """2026-01-05 ERROR disk full (code 28)
2026-01-06 INFO started
2026-01-07 ERROR timeout (code 110)"""
pattern = re.compile(r"^(?P<day>\d{4}-\d{2}-\d{2}) (?P<level>[A-Z]+) (?P<text>.+?)(?: \(code (\d+)\))?$", re.MULTILINE)
errors = [m.groupdict() for m in pattern.finditer(text) if m["level"] == "ERROR"]
codes = [int(code) for code in re.findall(r"code (\d+)", text)]
masked = re.sub(r"\d{4}-(\d{2})-(\d{2})", r"\2.\1.", text).split("\n")[0]
camel = re.sub(r"_([a-z])", lambda m: m.group(1).upper(), "to_camel_case")
found = re.search(r"(\w+)@(\w+)\.com", "mail bob@site.com")
[errors, codes, masked, camel, list(found.groups()), re.split(r"[,;]\s*", "a, b;c"), re.match(r"\d", "x") is None]
