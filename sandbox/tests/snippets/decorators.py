# decorators with and without arguments
# result: [2, 5, ["hi Bo", "hi Bo", "hi Bo"], ["add", "add"], "add"]
import functools


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls.append(function.__name__)
        return function(*args, **kwargs)

    return wrapper


def repeat(times):
    def decorate(function):
        def wrapper(*args, **kwargs):
            return [function(*args, **kwargs) for _ in range(times)]

        return wrapper

    return decorate


calls = []


@logged
def add(a, b=1):
    """Adds."""
    return a + b


@repeat(times=3)
def greet(name):
    return f"hi {name}"


[add(1), add(2, b=3), greet("Bo"), calls, add.__name__]
