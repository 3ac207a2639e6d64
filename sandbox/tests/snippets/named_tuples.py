# NamedTuple classes and namedtuple
# result: [5.0, 7.0, [1.0, 0.0], {"red": 1, "green": 255, "blue": 0}, "x"]
from collections import namedtuple
from typing import NamedTuple


class Point(NamedTuple):
    x: float
    y: float = 0.0

    def length(self) -> float:
        return (self.x**2 + self.y**2) ** 0.5


Color = namedtuple("Color", ["red", "green", "blue"])
point = Point(3.0, 4.0)
x, y = point
green = Color(0, 255, 0)._replace(red=1)
[point.length(), x + y, list(Point(1.0)), green._asdict(), point._fields[0]]
