# textwrap
# result: [["The quick brown fox", "jumps over the lazy dog.", "It was not amused."], "def f():\n    return 1", "> a\n> b", "The quick brown fox jumps..."]
import textwrap

text = "The quick brown fox jumps over the lazy dog. It was not amused."
code = """
    def f():
        return 1
"""
[
    textwrap.wrap(text, width=24),
    textwrap.dedent(code).strip(),
    textwrap.indent("a\nb", "> "),
    textwrap.shorten(text, width=30, placeholder="..."),
]
