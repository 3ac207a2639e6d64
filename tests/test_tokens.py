"""The estimate compared with the exact o200k count. Texts in other languages are the first article of the Universal
Declaration of Human Rights."""

import base64
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate import config, tokens
from mcpgate.tokens import count, estimate

_RANDOM = random.Random(7)
_ROWS = [
    {"id": i, "name": f"item {i}", "price": round(_RANDOM.random() * 1000, 2), "tags": ["new", "sale"], "note": None}
    for i in range(60)
]
_PROSE = (
    "The gateway keeps one connection to every server and shows a model four tools instead of hundreds. What a "
    "program prints or returns is all that leaves the sandbox; everything else stays where it is, and costs nothing. "
    "When a result is too long, it is shortened by meaning: the first and the last items remain, with a count of what "
    "was left out, and the whole value can be loaded again later."
)
_CSV = "\n".join(
    ["id,name,amount,created_at"]
    + [f"{i},Customer {i},{_RANDOM.randint(1, 10**6)},2025-{i % 12 + 1:02}-17T08:{i % 60:02}:00Z" for i in range(80)]
)
CORPUS = {
    "prose": _PROSE,
    "python": Path(config.__file__).read_text(encoding="utf-8"),
    "json": json.dumps(_ROWS),
    "compact json": json.dumps(_ROWS, separators=(",", ":")),
    "indented json": json.dumps(_ROWS, indent=2),
    "csv": _CSV,
    "numbers": json.dumps([_RANDOM.random() for _ in range(60)] + [_RANDOM.randint(0, 10**6) for _ in range(60)]),
    "uuids": json.dumps([f"{_RANDOM.getrandbits(128):032x}" for _ in range(40)]),
    "log": "\n".join(
        f"2025-11-21 08:{i:02}:12,345 INFO [worker-{i}] GET /api/v1/items/{i * 37} 200" for i in range(40)
    ),
    "html": '<div class="row"><a href="https://example.com/a/b?x=1&y=2">Link</a></div>\n' * 20,
    "sql": "SELECT u.id, COUNT(*) AS n FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id ORDER BY n;\n" * 5,
    "names": "read_text_file listDirectory max_result_tokens HTTPServer createdAt get_user_by_id " * 5,
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. Mọi con người đều "
    "được tạo hóa ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью "
    "и должны поступать в отношении друг друга в духе братства.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι "
    "με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا "
    "بروح الإخاء.",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם "
    "לנהוג איש ברעהו ברוח של אחווה.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा "
    "की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを"
    "授けられており、互いに同胞の精神をもって行動しなければならない。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 "
    "부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
}
_NO_VOCABULARY = {
    "Italian": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "Indonesian": "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama. Mereka dikaruniai akal "
    "dan hati nurani dan hendaknya bergaul satu sama lain dalam persaudaraan.",
    "base64": base64.b64encode(_RANDOM.randbytes(600)).decode(),
}

pytestmark = pytest.mark.skipif(not tokens.is_exact(), reason="bpe-openai is not installed")


@pytest.mark.parametrize("kind", CORPUS)
def test_the_estimate_is_at_most_5_percent_below_and_45_above_the_exact_count(kind: str) -> None:
    exact = count(CORPUS[kind])
    assert 0.95 * exact <= estimate(CORPUS[kind]) <= 1.45 * exact


@pytest.mark.parametrize("kind", _NO_VOCABULARY)
def test_what_only_a_vocabulary_could_know_is_at_most_30_percent_below(kind: str) -> None:
    exact = count(_NO_VOCABULARY[kind])
    assert 0.7 * exact <= estimate(_NO_VOCABULARY[kind]) <= 1.45 * exact


def test_the_whole_corpus_is_never_under_estimated() -> None:
    together = "\n".join(CORPUS.values())
    assert count(together) <= estimate(together) <= 1.25 * count(together)


def test_nothing_costs_nothing() -> None:
    assert estimate("") == count("") == 0


@given(st.text(), st.text())
def test_more_text_is_not_less_and_every_text_has_an_estimate(one: str, other: str) -> None:
    assert (estimate(one) == 0) <= (one == "")
    assert estimate(f"{one}\n{other}") <= estimate(one) + estimate(other) + 1 + len(one + other)
    assert estimate(one * 3) >= estimate(one)
