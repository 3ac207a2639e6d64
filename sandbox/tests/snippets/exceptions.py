# try, except, else, finally, raise from, exceptions of one's own
# result: [80, "done", ["port", "port: not a number", "ValueError"], "done", "TypeError", "done"]
class ConfigError(Exception):
    def __init__(self, key, message):
        super().__init__(f"{key}: {message}")
        self.key = key


def parse(text):
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError("port", "not a number") from error


seen = []
for text in ["80", "http", None]:
    try:
        value = parse(text)
    except ConfigError as error:
        seen.append([error.key, str(error), type(error.__cause__).__name__])
    except (TypeError, KeyError) as error:
        seen.append(type(error).__name__)
    else:
        seen.append(value)
    finally:
        seen.append("done")
seen
