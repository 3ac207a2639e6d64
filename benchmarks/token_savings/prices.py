"""Published prices, to turn tokens into money. Per million tokens, in US dollars."""

from dataclasses import dataclass
from decimal import Decimal

from benchmarks.token_savings.transcript import Usage

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Price:
    model: str
    input_usd: Decimal
    output_usd: Decimal
    cached_share: Decimal = Decimal("0.1")
    """Share of the input price for what is read from the prompt cache."""

    def cost_usd(self, usage: Usage, *, cached: bool) -> Decimal:
        reads = Decimal(usage.cached_tokens if cached else 0)
        full = usage.input_tokens - reads
        return (self.input_usd * (full + self.cached_share * reads) + self.output_usd * usage.output_tokens) / _MILLION


GPT_5 = Price("gpt-5", Decimal("1.25"), Decimal("10"))
"""OpenAI's: 1.25 in, 0.125 for cached input, 10 out, in the snapshot that genai-prices 0.2.3 (PyPI) ships;
a test compares them. Its tokenizer is the one that we count with."""
