# hashlib and base64
# result: ["aGVsbG8gd8O2cmxk", "hello wörld", "-_8=", "821cd58a9fb89914", "900150983cd24fb0d6963f7d28e17f72"]
import base64
import hashlib

text = "hello wörld"
data = text.encode("utf-8")
encoded = base64.b64encode(data).decode()
[
    encoded,
    base64.b64decode(encoded).decode("utf-8"),
    base64.urlsafe_b64encode(b"\xfb\xff").decode(),
    hashlib.sha256(data).hexdigest()[:16],
    hashlib.md5(b"abc").hexdigest(),
]
