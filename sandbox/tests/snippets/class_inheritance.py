# classes that inherit, with private attributes and special methods
# result: ["Rex says Woof", "Dog('Rex')", true, false, 2, true]
class Animal:
    def __init__(self, name, sound="..."):
        self.name = name
        self._sound = sound

    def speak(self):
        return f"{self.name} says {self._sound}"

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r})"

    def __eq__(self, other):
        return isinstance(other, Animal) and self.name == other.name


class Dog(Animal):
    def __init__(self, name):
        super().__init__(name, sound="Woof")
        self._tricks = []

    def learn(self, trick):
        self._tricks.append(trick)
        return self

    def __len__(self):
        return len(self._tricks)


rex = Dog("Rex").learn("sit").learn("roll")
[rex.speak(), repr(rex), rex == Dog("Rex"), rex == Dog("Max"), len(rex), isinstance(rex, Animal)]
