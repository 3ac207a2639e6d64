# properties, class methods and static methods
# result: [212.0, 0.0, 10.0, true, 2]
class Temperature:
    count = 0

    def __init__(self, celsius):
        self._celsius = celsius
        Temperature.count += 1

    @property
    def fahrenheit(self):
        return self._celsius * 9 / 5 + 32

    @fahrenheit.setter
    def fahrenheit(self, value):
        self._celsius = (value - 32) * 5 / 9

    @classmethod
    def from_fahrenheit(cls, value):
        return cls((value - 32) * 5 / 9)

    @staticmethod
    def is_hot(celsius):
        return celsius > 30


first = Temperature(100)
second = Temperature.from_fahrenheit(50)
before = first.fahrenheit
first.fahrenheit = 32
[before, first._celsius, second._celsius, Temperature.is_hot(31), Temperature.count]
