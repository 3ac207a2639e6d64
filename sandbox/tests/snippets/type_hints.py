# annotated variables and functions, generics
# result: [1, "a", "none", 42, [1, 2], null, {}]
from collections.abc import Callable, Iterable
from typing import Any, Generic, Optional, TypeVar

T = TypeVar("T")
x: int = 1
names: list[str] = ["a", "b"]
lookup: dict[str, Any] = {}
missing: str | None = None


def first(items: Iterable[T], default: Optional[T] = None) -> T | None:
    for item in items:
        return item
    return default


class Stack(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []

    def push(self, item: T) -> "Stack[T]":
        self.items.append(item)
        return self


def apply(function: Callable[[int], int], value: int) -> int:
    result: int = function(value)
    return result


stack: Stack[int] = Stack()
[x, first(names), first([], "none"), apply(lambda n: n + 1, 41), stack.push(1).push(2).items, missing, lookup]
