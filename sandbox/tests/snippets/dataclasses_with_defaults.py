# dataclasses: defaults, order, asdict, replace
# result: ["[1] read", {"priority": 1, "title": "read", "tags": ["now"]}, 9, ["read", "test", "write"], true]
from dataclasses import asdict, dataclass, field, replace


@dataclass(order=True)
class Task:
    priority: int
    title: str = field(compare=False)
    tags: list[str] = field(default_factory=list, compare=False)

    def label(self) -> str:
        return f"[{self.priority}] {self.title}"


tasks = [Task(3, "write"), Task(1, "read", ["now"]), Task(2, "test")]
first = min(tasks)
later = replace(first, priority=9)
[first.label(), asdict(first), later.priority, [task.title for task in sorted(tasks)], Task(1, "a") == Task(1, "b")]
