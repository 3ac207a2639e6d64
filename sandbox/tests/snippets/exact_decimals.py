# decimal
# result: ["25.10", "4.77", "29.87", true]
from decimal import ROUND_HALF_UP, Decimal

prices = ["19.99", "5.01", "0.10"]
total = sum((Decimal(price) for price in prices), Decimal("0"))
tax = (total * Decimal("0.19")).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
[str(total), str(tax), str(total + tax), Decimal("0.1") + Decimal("0.2") == Decimal("0.3")]
