# enums and their members
# result: ["OPEN", "closed", ["open", "closed"], true, true]
from enum import Enum, IntEnum, auto


class Status(Enum):
    OPEN = "open"
    CLOSED = "closed"

    def is_done(self):
        return self is Status.CLOSED


class Level(IntEnum):
    LOW = auto()
    HIGH = auto()


[
    Status("open").name,
    Status["CLOSED"].value,
    [s.value for s in Status],
    Status.CLOSED.is_done(),
    Level.HIGH > Level.LOW,
]
