# difflib
# result: [["-beta", "+beta!", "+delta"], 0.615, ["maple", "apple"]]
import difflib

before = ["alpha", "beta", "gamma"]
after = ["alpha", "beta!", "gamma", "delta"]
diff = [
    line
    for line in difflib.unified_diff(before, after, lineterm="", n=0)
    if line[:1] in "+-" and line[:3] not in ("+++", "---")
]
ratio = difflib.SequenceMatcher(None, "kitten", "sitting").ratio()
[diff, round(ratio, 3), difflib.get_close_matches("aple", ["apple", "maple", "grape"], n=2)]
