# bytes, and text built up piece by piece
# result: ["0:61\n1:62\n2:63\nz\n-----", "616263646566", 255, "b", 6, true]
data = "abc".encode() + bytes([100, 101, 102])
parts = []
for number, byte in enumerate(data[:3]):
    parts.append(f"{number}:{byte:02x}")
parts.append(chr(ord("a") + 25))
report = "\n".join(parts)
report += "\n" + "-" * 5
[report, data.hex(), bytes.fromhex("ff00")[0], b"a,b".split(b",")[1].decode(), len("héllo".encode()), data[-1:] == b"f"]
