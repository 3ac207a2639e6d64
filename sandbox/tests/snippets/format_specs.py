# f-strings with format specs
# result: ["1,234,567.89", "12.3%", "  'Widget'", "**Widget**", "0xff 00000101 +42", "1.235e+06", "name='Widget'", "   3.1|v", "Widget has 3 of  0.12", "a    |    1|", "bb   |   22|"]
name, amount, share = "Widget", 1234567.891, 0.1234
table = [("a", 1), ("bb", 22)]
lines = [f"{key:<5}|{value:>5}|" for key, value in table]
width = 8
[
    f"{amount:,.2f}",
    f"{share:.1%}",
    f"{name!r:>10}",
    f"{name:*^{width + 2}}",
    f"{255:#x} {5:08b} {42:+d}",
    f"{amount:.3e}",
    f"{name=}",
    "{:>6.1f}|{key}".format(3.14159, key="v"),
    "%s has %d of %5.2f" % (name, 3, share),
    *lines,
]
