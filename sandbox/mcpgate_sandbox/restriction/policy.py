"""What restricted code may name, define and import: tables only. What is not listed does not exist."""

NOT_IN_PATTERNS = frozenset({"format", "format_map", "obj"})
"""Attributes that a match pattern may not look up, which the interpreter does without asking a guard: their values
are for the guards to look at."""

DEFINABLE = frozenset(
    f"__{name}__"
    for name in (
        "init post_init repr str bytes format hash bool len length_hint contains iter next reversed getitem setitem "
        "delitem missing call enter exit aenter aexit aiter anext await getattr dir eq ne lt le gt ge index int float "
        "complex round trunc floor ceil neg pos abs invert add sub mul matmul truediv floordiv mod divmod pow lshift "
        "rshift and or xor radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand ror rxor "
        "iadd isub imul imatmul itruediv ifloordiv imod ipow ilshift irshift iand ior ixor"
    ).split()
)
"""Special methods that a class may define."""

READABLE = (DEFINABLE - {"__getattr__", "__dir__"}) | {
    *("__name__", "__qualname__", "__module__", "__doc__", "__class__", "__members__", "__cause__", "__context__"),
    *("__notes__", "__version__"),
}
"""Special attributes that code may read."""

STEPPING = frozenset({"send", "throw", "asend", "athrow"})
"""Of coroutines: by hand they give away what they wait for."""

EVALUATING = frozenset(
    {"evaluate", "evaluate_bound", "evaluate_default", "evaluate_constraints", "evaluate_value", "get_type_hints"}
)
"""What evaluates annotations and the like, which no transformer has seen."""

HARMLESS_BASES = frozenset(
    {"ABC", "Generic", "Protocol", "HTMLParser", "JSONEncoder", "Random", "UserDict", "UserList"}
)
"""Library classes whose instances keep nothing to themselves that code may not have: classes that inherit from them
may have underscored attributes, as those that inherit from builtins may."""

UNDERSCORED = frozenset({"_asdict", "_replace", "_fields", "_make"})
"""Public all the same: of named tuples."""

CLASS_ATTRIBUTES = frozenset({"__slots__", "__hash__", "__doc__"})
"""Special names that a class body may assign."""

BUILTINS = tuple(
    (
        "None True False Ellipsis NotImplemented abs all any ascii bin bool bytearray bytes callable chr classmethod "
        "complex dict divmod enumerate filter float format frozenset hash hex id int isinstance issubclass iter len "
        "list map max min next object oct ord pow print property range repr reversed round set slice sorted "
        "staticmethod str sum super tuple zip aiter anext __debug__"
    ).split()
)
"""Taken over as they are, with all exceptions. Others have stand-ins (guards.py): type, getattr, setattr, open, …"""

MODULES: dict[str, str] = {
    "abc": "ABC abstractmethod",
    "array": "array",
    "base64": "b16decode b16encode b32decode b32encode b64decode b64encode b85decode b85encode "
    "standard_b64decode standard_b64encode urlsafe_b64decode urlsafe_b64encode",
    "binascii": "a2b_base64 a2b_hex b2a_base64 b2a_hex crc32 hexlify unhexlify Error",
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    "calendar": "Calendar TextCalendar calendar day_abbr day_name firstweekday isleap leapdays month month_abbr "
    "month_name monthcalendar monthrange timegm weekday",
    "cmath": "*",
    "collections": "ChainMap Counter OrderedDict UserDict UserList abc defaultdict deque",
    "collections.abc": "AsyncGenerator AsyncIterable AsyncIterator Awaitable Callable Collection Container Coroutine "
    "Generator Hashable ItemsView Iterable Iterator KeysView Mapping MutableMapping MutableSequence MutableSet "
    "Reversible Sequence Set Sized ValuesView",
    "colorsys": "*",
    "concurrent": "futures",
    "concurrent.futures": "ThreadPoolExecutor as_completed",
    "contextlib": "AsyncExitStack ExitStack aclosing asynccontextmanager closing contextmanager nullcontext suppress",
    "csv": "DictReader DictWriter QUOTE_ALL QUOTE_MINIMAL QUOTE_NONE QUOTE_NONNUMERIC Error reader writer",
    "dataclasses": "FrozenInstanceError KW_ONLY MISSING asdict astuple field fields is_dataclass replace",
    "datetime": "MAXYEAR MINYEAR UTC date datetime time timedelta timezone tzinfo",
    "decimal": "Context Decimal DecimalException DivisionByZero InvalidOperation Inexact ROUND_CEILING ROUND_DOWN "
    "ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP Rounded getcontext localcontext",
    "difflib": "Differ SequenceMatcher context_diff get_close_matches ndiff unified_diff",
    "enum": "auto unique",
    "fnmatch": "filter fnmatch fnmatchcase translate",
    "fractions": "Fraction",
    "functools": "cache cached_property cmp_to_key lru_cache partial reduce",
    "graphlib": "CycleError TopologicalSorter",
    "hashlib": "blake2b blake2s md5 new sha1 sha224 sha256 sha384 sha3_256 sha3_512 sha512",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "hmac": "compare_digest digest new",
    "html": "escape unescape",
    "html.parser": "HTMLParser",
    "io": "BytesIO StringIO",
    "ipaddress": "AddressValueError IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network "
    "ip_address ip_interface ip_network summarize_address_range collapse_addresses",
    "itertools": "*",
    "json": "JSONDecodeError JSONEncoder dumps loads",
    "keyword": "iskeyword issoftkeyword kwlist",
    "math": "*",
    "numbers": "Complex Integral Number Rational Real",
    "operator": "abs add and_ concat contains countOf eq floordiv ge getitem gt iadd index indexOf inv invert is_ "
    "is_not itemgetter le lshift lt matmul mod mul ne neg not_ or_ pos pow rshift sub truediv truth xor",
    "pathlib": "PurePath PurePosixPath PureWindowsPath",
    "pprint": "pformat pp pprint",
    "queue": "Empty Full",
    "quopri": "decodestring encodestring",
    "random": "Random SystemRandom betavariate choice choices expovariate gauss getrandbits normalvariate randbytes "
    "randint random randrange sample seed shuffle triangular uniform",
    "re": "A ASCII DOTALL I IGNORECASE M MULTILINE Match Pattern S U UNICODE VERBOSE X compile error escape findall "
    "finditer fullmatch match purge search split sub subn",
    "secrets": "choice compare_digest randbelow token_bytes token_hex token_urlsafe",
    "shlex": "join quote split",
    "statistics": "NormalDist StatisticsError correlation covariance fmean geometric_mean harmonic_mean "
    "linear_regression mean median median_grouped median_high median_low mode multimode pstdev pvariance quantiles "
    "stdev variance",
    "string": "Template ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable "
    "punctuation whitespace",
    "struct": "Struct calcsize error pack unpack unpack_from",
    "textwrap": "TextWrapper dedent fill indent shorten wrap",
    "time": "asctime ctime gmtime localtime mktime monotonic monotonic_ns perf_counter perf_counter_ns process_time "
    "sleep strftime strptime struct_time time time_ns",
    "tomllib": "TOMLDecodeError loads",
    "types": "MappingProxyType NoneType",
    "typing": "Annotated Any AnyStr Awaitable Callable ClassVar Collection Coroutine DefaultDict Deque Dict Final "
    "FrozenSet Generator Generic Hashable Iterable Iterator List Literal Mapping MutableMapping NewType "
    "NoReturn Optional ParamSpec Protocol Self Sequence Set Tuple Type TypeAlias TypeVar TypedDict Union cast final "
    "overload runtime_checkable NotRequired Required TYPE_CHECKING",
    "unicodedata": "*",
    "urllib": "parse",
    "urllib.parse": "parse_qs parse_qsl quote quote_plus unquote unquote_plus urldefrag urlencode urljoin urlparse "
    "urlsplit urlunparse urlunsplit",
    "uuid": "NAMESPACE_DNS NAMESPACE_OID NAMESPACE_URL UUID uuid3 uuid4 uuid5",
    "xml": "etree",
    "xml.etree": "ElementTree",
    "xml.etree.ElementTree": "Element ParseError SubElement fromstring indent tostring",
    "zlib": "adler32 compress crc32 decompress error",
    "gzip": "compress decompress",
    "zoneinfo": "ZoneInfo ZoneInfoNotFoundError available_timezones",
}
"""Modules, each with the names that code finds in its stand-in; `*` is every public name of a module that only
computes. `asyncio`, `sys` and some names that would reach too far have stand-ins of their own (tasks.py,
modules.py)."""

INTERPRETERS_OWN = frozenset({"_strptime", "warnings"})
"""Modules that C code imports on behalf of code: through the code's `__import__`, whose value it then ignores."""

ENCODINGS = "ascii base64_codec charmap cp1250 cp1252 cp437 cp850 hex_codec idna iso8859_1 iso8859_15 latin_1 "
ENCODINGS += "punycode raw_unicode_escape rot_13 unicode_escape utf_16 utf_16_be utf_16_le utf_32 utf_7 utf_8 utf_8_sig"
"""Loaded beforehand, for a child cannot read their files."""
