"""Makes a used Wasm instance as new by putting its memory back to what the snapshot holds (Linux 6.7 or later).

A new instance costs 560 page faults and more, for its memory is a private map of the compiled file: each page is
copied when it is first written. An instance whose run came to a clean end differs from a new one in its linear memory
only; that this is so of the component's code is checked when it is built (component_check.py). So copying back the
pages that it wrote makes it as new. They stay in place, and the next program faults on none of them.

The kernel says which pages those are (`PAGEMAP_SCAN`): all that are not the file's any more. What is copied back comes
from an instance that never runs. Nothing of this is taken on trust: a Recycler tries itself before it is used, and of
every thousand renewed memories one is compared whole. Whatever is not as expected ends with NotRenewable, and the
instance is thrown away as if it had never been meant to be used again.

It does not decide which guests may be renewed: see pool.
"""

import ctypes
import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from mcpgate_sandbox.sessions import Closable

log = logging.getLogger("mcpgate_sandbox.recycle")
_PAGE = 4096
_MOST_PAGES = 2048
"""How many pages of its own a memory may keep, for each is copied at every renewal. A small program writes 400, one
that gathers fifty calls 1,000."""
_REGIONS_AT_ONCE = 512
"""What the kernel's own buffer holds. Asked for more, it goes on, but says that it has not (`walk_end`; Linux 6.18)."""
_COMPARE_EVERY = 1000
"""Renewals for each that is looked at whole, which takes 15 ms."""
_COMPARED_AT_ONCE = 1024 * 1024
_TRIES = 3
_MADV_DONTNEED, _MADV_POPULATE_READ = 4, 22
_PAGE_IS_FILE, _PAGE_IS_PRESENT, _PAGE_IS_SWAPPED = 4, 8, 16

MAPPING = threading.RLock()
"""Held by whoever makes or closes an instance, anywhere in this process: a memory is found as the one map that has been
added."""


class NotRenewable(Exception):
    """This instance, or this machine, is not one that can be renewed."""


I = TypeVar("I", bound=Closable)  # noqa: E741  an instance


class _Region(ctypes.Structure):
    """struct page_region of linux/fs.h"""

    _fields_ = [(name, ctypes.c_uint64) for name in ("start", "end", "categories")]


class _Scan(ctypes.Structure):
    """struct pm_scan_arg of linux/fs.h"""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages"),
            *("category_inverted", "category_mask", "category_anyof_mask", "return_mask"),
        )
    ]


_PAGEMAP_SCAN = (3 << 30) | (ctypes.sizeof(_Scan) << 16) | (ord("f") << 8) | 16


class Recycler(Generic[I]):
    """Renews the instances of one component."""

    def __init__(
        self, make: Callable[[], I], try_out: Callable[[I], None], compare_every: int = _COMPARE_EVERY
    ) -> None:
        """`make` makes an instance, `try_out` runs something in one. Raises NotRenewable and OSError where instances
        cannot be renewed."""
        self.trusted = True
        """False once a renewed memory was not as new: then nothing is renewed any more."""
        self.renewals = 0
        """How often a memory was renewed."""
        self._make, self._compare_every = make, compare_every
        self._lock = threading.Lock()
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self.libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.pagemap)
        # Neither is ever closed by hand: a thread may still be renewing something.
        self._never_runs, self.original = self._made()
        self._try_itself(try_out)

    def made(self) -> "tuple[I, Memory | None]":
        """A new instance, and its memory if that can be renewed."""
        with MAPPING:
            try:
                instance, memory = self._made()
            except NotRenewable:
                return self._make(), None
        return instance, memory if self.trusted and memory.size == self.original.size else None

    def count(self) -> bool:
        """Count a renewal; whether it is one whose memory is to be compared."""
        with self._lock:
            self.renewals += 1
            return self.renewals % self._compare_every == 0

    def distrust(self) -> None:
        """A renewed memory was not as new."""
        if self.trusted:
            self.trusted = False
            log.error(
                "a renewed guest was not as new: guests are not renewed any more until the gateway restarts. No guest "
                "that was renewed is used again. Please report this, and set sandbox.recycle: off"
            )

    def _try_itself(self, try_out: Callable[[I], None]) -> None:
        instance, memory = self._made()
        try:
            if self.libc.madvise(memory.end - _PAGE, _PAGE, _MADV_POPULATE_READ) != 0:
                raise NotRenewable("this kernel does not tell memory from what lies beyond it")
            try_out(instance)
            if not memory.written():
                raise NotRenewable("this kernel does not say what was written")
            memory.put_back()
            if not memory.is_original():
                raise NotRenewable("this kernel does not say all that was written")
        finally:
            instance.close()

    def _made(self) -> "tuple[I, Memory]":
        instance, span = self._mapped()
        try:
            memory = Memory(self, *span)
            if memory.written() != []:
                raise NotRenewable("a new memory has been written to")
        except BaseException:
            instance.close()
            raise
        return instance, memory

    def _mapped(self) -> tuple[I, tuple[int, int]]:
        """A new instance, and where its memory is."""
        for _ in range(_TRIES):
            with MAPPING:
                before = {entry.start for entry in _maps() if entry.is_image}
                instance = self._make()
                maps = _maps()
            added = [at for at, entry in enumerate(maps) if entry.is_image and entry.start not in before]
            try:
                if len(added) == 1:
                    return instance, _around(maps, added[0])
            except BaseException:
                instance.close()
                raise
            # The garbage collector took away an instance that nobody had closed, and the new one lies where it lay.
            instance.close()
        raise NotRenewable("the memory of a new instance is not found")


class Memory:
    """The linear memory of one instance. Not to be touched any more once that is closed."""

    def __init__(self, recycler: Recycler[I], start: int, end: int) -> None:
        self._recycler, self.start, self.end, self.size = recycler, start, end, end - start
        self.bytes = memoryview((ctypes.c_char * self.size).from_address(start)).cast("B")
        regions = (_Region * _REGIONS_AT_ONCE)()
        self._regions = memoryview(regions).cast("B").cast("Q")
        # Pages that are its own and not the file's, in memory or swapped out. The page of zeros counts as its own.
        self._scan = _Scan(
            size=ctypes.sizeof(_Scan),
            start=start,
            end=end,
            vec=ctypes.addressof(regions),
            vec_len=_REGIONS_AT_ONCE,
            category_inverted=_PAGE_IS_FILE,
            category_mask=_PAGE_IS_FILE,
            category_anyof_mask=_PAGE_IS_PRESENT | _PAGE_IS_SWAPPED,
        )

    @property
    def trusted(self) -> bool:
        return self._recycler.trusted

    def renew(self) -> None:
        """Make it what the snapshot holds. Raises NotRenewable; then the instance is of no more use."""
        if not self._recycler.trusted:
            raise NotRenewable("renewing has failed before")
        self.put_back()
        if self._recycler.count():
            if not self.is_original():
                self._recycler.distrust()
                raise NotRenewable("it is not as new")
            self._give_back()  # comparing has mapped all of the file's pages

    def put_back(self) -> None:
        """Copy what the snapshot holds over what was written. Raises NotRenewable."""
        # What lies beyond its end is inaccessible (EINVAL), or it has grown; any other answer may hide that it has.
        beyond = self._recycler.libc.madvise(self.end, _PAGE, _MADV_POPULATE_READ)
        if beyond == 0 or ctypes.get_errno() != errno.EINVAL:
            raise NotRenewable("it has grown")
        regions = self.written()
        if regions is None:
            self._give_back()
            return
        mine, original, base = self.bytes, self._recycler.original.bytes, self.start
        for start, end in zip(regions[::3], regions[1::3], strict=True):
            mine[start - base : end - base] = original[start - base : end - base]

    def written(self) -> list[int] | None:
        """Where it has been written to: start, end, 0, start, end, 0, …; None where that is too much to list. Raises
        NotRenewable if the kernel cannot tell."""
        found: list[int] = []
        pages, self._scan.start = 0, self.start
        while True:
            self._scan.max_pages = _MOST_PAGES + 1 - pages
            count = self._recycler.libc.ioctl(self._recycler.pagemap, _PAGEMAP_SCAN, ctypes.byref(self._scan))
            if count < 0:
                raise NotRenewable(f"the kernel does not say what was written: {os.strerror(ctypes.get_errno())}")
            regions = self._regions[: 3 * count].tolist()
            found += regions
            pages += (sum(regions[1::3]) - sum(regions[::3])) // _PAGE
            if pages > _MOST_PAGES:
                return None
            if self._scan.walk_end == self.end:
                return found
            if not self.start <= self._scan.start < self._scan.walk_end < self.end:
                raise NotRenewable("the kernel does not say how far it looked")
            self._scan.start = self._scan.walk_end

    def is_original(self) -> bool:
        """Whether it is what the snapshot holds, looking at all of it."""
        libc, original = self._recycler.libc, self._recycler.original
        for offset in range(0, self.size, _COMPARED_AT_ONCE):
            size = min(_COMPARED_AT_ONCE, self.size - offset)
            if libc.memcmp(self.start + offset, original.start + offset, size) != 0:
                return False
            libc.madvise(original.start + offset, size, _MADV_DONTNEED)  # it was only read: the file has it
        return True

    def _give_back(self) -> None:
        """Drop every page of its own: a private map then shows what the file holds."""
        if self._recycler.libc.madvise(self.start, self.size, _MADV_DONTNEED) != 0:
            raise NotRenewable("its pages cannot be given back")


class _Map(NamedTuple):
    """One line of /proc/self/maps."""

    start: int
    end: int
    rights: str
    name: str

    @property
    def is_image(self) -> bool:
        """Whether it is a private map of the snapshot, which is the middle of an instance's memory."""
        compiled = self.name.removesuffix(" (deleted)").endswith(".cwasm") or self.name.startswith("/memfd:wasm")
        return compiled and self.rights == "rw-p"


def _maps() -> list[_Map]:
    found = []
    with open("/proc/self/maps") as file:
        for line in file:
            span, rights, _, _, _, *name = line.split(None, 5)
            start, _, end = span.partition("-")
            found.append(_Map(int(start, 16), int(end, 16), rights, name[0].strip() if name else ""))
    return found


def _around(maps: list[_Map], image: int) -> tuple[int, int]:
    """Start and end of the memory in which an image lies: what is writable around it, with inaccessible space on
    either side. Raises NotRenewable."""
    first = last = image
    while first > 0 and maps[first - 1].end == maps[first].start and maps[first - 1].rights == "rw-p":
        first -= 1
    while last + 1 < len(maps) and maps[last + 1].start == maps[last].end and maps[last + 1].rights == "rw-p":
        last += 1
    if first == 0 or last + 1 == len(maps):
        raise NotRenewable("there is nothing around the memory")
    before, after = maps[first - 1], maps[last + 1]
    guarded = before.end == maps[first].start and after.start == maps[last].end
    if not guarded or not before.rights == after.rights == "---p":
        raise NotRenewable("what is around the memory is accessible")
    if sum(1 for entry in maps[first : last + 1] if entry.name) != 1:
        raise NotRenewable("something else lies in the memory")
    return maps[first].start, maps[last].end
