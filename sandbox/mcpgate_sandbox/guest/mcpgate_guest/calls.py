"""Tool calls as the model's code writes them: `files.read(path=…)`, with or without `await`.

With no event loop running a call blocks and returns its value. With one running it has already left
when it returns, and what it returns is a `Pending`: await it, gather it, or just use it, which waits.
"""

import asyncio
import difflib
import functools
import operator
import types
from typing import Any

import wit_world

from mcpgate_guest import wire
from mcpgate_guest.errors import CLIENT, ToolError

_waiting: dict[int, "Pending"] = {}
"""Calls that have no answer yet."""
_unseen: dict[int, "Pending"] = {}
"""Calls whose answer nobody has looked at."""
_next_id = 0


class Pending:
    """The answer of a call that has left. Awaitable; used in any other way it waits for the value and
    stands for it."""

    __slots__ = ("_answer", "_done", "_error", "_futures", "_id", "_results", "_value")

    def __init__(self, id: int) -> None:
        self._id, self._done = id, False
        self._answer: str | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._futures: list[asyncio.Future[None]] = []
        """Of those that await it."""
        self._results: list[asyncio.Future[Any]] = []
        """Futures that are to have its value."""

    def _finish(self, answer: str) -> None:
        self._done, self._answer = True, answer
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._futures.clear()
        for result in self._results:
            self._settle(result)
        self._results.clear()

    def _settle(self, result: "asyncio.Future[Any]") -> None:
        if not result.done():
            try:
                result.set_result(self._take())
            except asyncio.CancelledError:
                result.cancel()
            except BaseException as error:
                result.set_exception(error)

    def _take(self) -> Any:
        _unseen.pop(self._id, None)
        if self._answer is not None:
            answer, self._answer = self._answer, None
            try:
                self._value = wire.decode(answer)
            except BaseException as error:
                self._error = error
        if self._error is not None:
            raise self._error
        return self._value

    def _mcpgate_value(self) -> Any:
        while not self._done:
            pump(None)
        return self._take()

    def __await__(self) -> Any:
        if not self._done:
            future = asyncio.get_running_loop().create_future()
            self._futures.append(future)
            try:
                yield from future
            except asyncio.CancelledError as error:
                if not self._done:
                    self._futures.remove(future)
                    self._cancel_if_forsaken(error)
                raise
        return self._take()

    def _mcpgate_future(self) -> "asyncio.Future[Any]":
        """A future that will have the value: what a task that awaits it comes to, at a third of the price."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._done:
            self._settle(result)
        else:
            self._results.append(result)
            result.add_done_callback(self._given_up)
        return result

    def _given_up(self, result: "asyncio.Future[Any]") -> None:
        if result.cancelled() and not self._done:
            self._results.remove(result)
            self._cancel_if_forsaken(asyncio.CancelledError())

    def _cancel_if_forsaken(self, error: BaseException) -> None:
        if not self._futures and not self._results:
            self._done, self._error = True, error
            _waiting.pop(self._id, None)
            _unseen.pop(self._id, None)
            wit_world.call("@cancel", str(self._id))

    def __hash__(self) -> int:
        return hash(self._mcpgate_value())

    def __eq__(self, other: object) -> Any:
        return True if other is self else self._mcpgate_value() == value_of(other)

    def __ne__(self, other: object) -> Any:
        return not self.__eq__(other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mcpgate_value(), name)

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(self._mcpgate_value())


def _forward(name: str, function: Any) -> None:
    def method(self: Pending, *args: Any) -> Any:
        return function(self._mcpgate_value(), *map(value_of, args))

    method.__name__ = name
    setattr(Pending, name, method)


for _name in (
    "lt le gt ge add sub mul truediv floordiv mod pow lshift rshift and or xor matmul getitem setitem "
    "delitem contains neg pos abs invert index"
).split():
    _forward(f"__{_name}__", getattr(operator, f"__{_name}__"))
for _name in "add sub mul truediv floordiv mod pow lshift rshift and or xor matmul".split():
    _forward(f"__r{_name}__", functools.partial(lambda f, a, b: f(b, a), getattr(operator, f"__{_name}__")))
for _name, _function in {
    "len": len, "iter": iter, "next": next, "bool": bool, "str": str, "repr": repr, "format": format,
    "int": int, "float": float, "complex": complex, "bytes": bytes, "reversed": reversed,
    "round": round, "divmod": divmod, "hex": hex, "call": lambda f, *a: f(*a),
}.items():  # fmt: skip
    _forward(f"__{_name}__", _function)


def value_of(value: Any) -> Any:
    """The value itself, waiting for it if it is still on its way."""
    return value._mcpgate_value() if type(value) is Pending else value


def values_of(container: Any) -> Any:
    """A list, tuple or dict with the values in place of the calls that it holds."""
    if type(container) is dict:
        return {key: value_of(value) for key, value in container.items()}
    return type(container)([value_of(value) for value in container])


async def wait_for_value(value: Any) -> Any:
    """`value_of` for code that may await."""
    return await value if type(value) is Pending else value


async def wait_for_values(container: Any) -> Any:
    """`values_of` for code that may await."""
    for value in container.values() if type(container) is dict else container:
        await wait_for_value(value)
    return values_of(container)


def pump(timeout_s: float | None) -> bool:
    """Wait for answers, hand them to whoever waits, say whether any came."""
    frame = wit_world.poll(-1 if timeout_s is None else max(0, int(timeout_s * 1000 + 0.999)))
    if not frame:
        return False
    head, _, body = frame.partition("\n")
    at = 0
    for part in head.split():
        id, _, chars = part.partition(":")
        answer = body[at : at + int(chars)]
        at += int(chars)
        pending = _waiting.pop(int(id), None)
        if pending is not None:
            pending._finish(answer)
    return True


def drain() -> list[str]:
    """Let calls that were started and never awaited come to their end; what failed among them."""
    failed = []
    for pending in list(_unseen.values()):
        try:
            pending._mcpgate_value()
        except Exception as error:
            failed.append(f"a call that was never awaited failed: {error}")
    return failed


def forget() -> None:
    """The execution ends: the host drops what is still on its way, so a session must not wait for it later."""
    for pending in _waiting.values():
        pending._finish('-{"message":"the execution that made this call ended before its answer came"}')
    _waiting.clear()
    _unseen.clear()


def start_over() -> None:
    """As if no call had ever been made."""
    global _next_id
    forget()
    _next_id = 0


class Tool:
    """One tool of an upstream, callable."""

    __slots__ = ("__name__", "_server")

    def __init__(self, server: str, name: str) -> None:
        self._server, self.__name__ = server, name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        global _next_id
        arguments = wire.encode([args, kwargs])
        name = wire.clean(self.qualified)
        if asyncio._get_running_loop() is None:
            return wire.decode(wit_world.call(name, arguments))
        _next_id += 1
        pending = _waiting[_next_id] = _unseen[_next_id] = Pending(_next_id)
        wit_world.submit(_next_id, name, arguments)
        return pending

    @property
    def qualified(self) -> str:
        return f"{self._server}.{self.__name__}"

    def __repr__(self) -> str:
        return f"<function {self.__name__}>" if self._server == CLIENT else f"<tool {self.qualified}>"


class Server:
    """An upstream as a global of the code; its tools are attributes. Items take the original name of a
    tool too: `files["read-file"](…)`."""

    def __init__(self, name: str, module: types.ModuleType | None = None) -> None:
        self.__dict__.update(_name=name, _module=module, _tools=None)

    def _names(self) -> dict[str, str]:
        if self._tools is None:
            self.__dict__["_tools"] = wire.call("@tools", [[self._name], {}])
        return self._tools

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        names = self._names()
        if name in names:
            tool = Tool(self._name, names[name])
            self.__dict__[name] = tool
            return tool
        if self._module is not None and not name.startswith("_") and hasattr(self._module, name):
            return getattr(self._module, name)
        near = difflib.get_close_matches(name, names, 3, 0.5)
        hint = (
            f"; did you mean {' or '.join(near)}?"
            if near
            else f"; it has {len(set(names.values()))} tools, see dir({self._name})"
        )
        raise AttributeError(f"server {self._name} has no tool {name}{hint}", name=name, obj=self)

    def __getitem__(self, name: str) -> Any:
        return self.__getattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({name for name in self._names() if name.isidentifier()})

    def __repr__(self) -> str:
        try:
            return f"<server {self._name}: {len(dir(self))} tools>"
        except ToolError:
            return f"<server {self._name}>"
