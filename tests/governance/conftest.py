"""The stores of tests/stores, and gates on top of them."""

from tests.stores.conftest import place, shared_place

__all__ = ["place", "shared_place"]
