"""Locks a process into what it has: Linux's system call filter, no new privileges, resource limits, no other user's
rights. Nothing of it can be undone from inside. Imports nothing but the standard library.

The filter is an allow-list: memory, clocks, random bytes, waiting on a lock, and reading and writing one descriptor.
All else fails with EPERM, which Python shows as PermissionError. Numbers and layout: linux/seccomp.h,
linux/filter.h, asm/unistd_64.h, asm-generic/unistd.h.
"""

import ctypes
import os
import platform
import struct
import sys

_ALLOW, _KILL, _DENY = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # the last: fail with EPERM
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_2 = 0, 4, 16, 32
_PROT_EXEC = 4
_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE, _PR_SET_PDEATHSIG = 38, 4, 1
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_NOBODY = 65534
_MOST_MIB = 4096
"""Of any execution in this process, whatever its own limit: this one can never be raised again."""
_INTERPRETER_MIB = 45
"""What the limit of memory allows for the interpreter itself, on every engine."""

_NUMBERS = {
    "x86_64": (
        0xC000003E,
        {
            **{"seccomp": 317, "read": 0, "write": 1, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12},
            **{"rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "mremap": 25, "madvise": 28},
            **{"nanosleep": 35, "exit": 60, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "futex": 202},
            **{"clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231},
            **{"getrandom": 318, "restart_syscall": 219, "sched_yield": 24, "rseq": 334},
            **{"prlimit64": 302},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            **{"seccomp": 277, "read": 63, "write": 64, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214},
            **{"rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "mremap": 216, "madvise": 233},
            **{"nanosleep": 101, "exit": 93, "gettimeofday": 169, "sigaltstack": 132, "gettid": 178, "futex": 98},
            **{"clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94},
            **{"getrandom": 278, "restart_syscall": 128, "sched_yield": 124, "rseq": 293},
            **{"prlimit64": 261},
        },
    ),
}
_ON_THE_DESCRIPTOR = ("read", "write")
_ON_ITSELF = ("prlimit64",)  # limits can only become tighter
_NOT_EXECUTABLE = ("mmap", "mprotect")

SYSTEM_CALL_FILTER = "system calls filtered by the kernel: memory, clocks, random bytes, one descriptor"
"""The lock that stands between a broken interpreter and the machine; the others make it tighter."""


def lock_down(descriptor: int) -> list[str]:
    """Lock this process and all of its threads into memory, clocks and one descriptor. Returns, in words, what was
    really put in place: less where the platform has less."""
    active = []
    os.environ.clear()
    active.append("empty environment")
    _close_all_but(descriptor)
    active.append("no descriptor but its pipe")
    if _limit_resources():
        active.append("no files written, no processes started, no core dumps (rlimits)")
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
        if os.geteuid() == 0 and _become_nobody():
            libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)  # a change of user forgets it
            active.append("not root any more")
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            active.append("no new privileges")
        if _filter_system_calls(libc, descriptor):
            active.append(SYSTEM_CALL_FILTER)
    return active


def _become_nobody() -> bool:
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:  # a root without the right to be somebody else, as in a container with dropped capabilities
        return False
    return True


def address_space() -> int:
    """Bytes of address space that this process has now; 0 where nobody can tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def limit_memory(address_space_at_first: int, mib: int) -> None:
    """Bound the memory of this process: what it had before any code ran is the interpreter and counts as such."""
    if address_space_at_first:
        import resource

        most = address_space_at_first + (mib - _INTERPRETER_MIB) * 1024 * 1024
        ever = address_space_at_first + _MOST_MIB * 1024 * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most, ever if hard == resource.RLIM_INFINITY else hard))


def _close_all_but(descriptor: int) -> None:
    try:
        highest = max(map(int, os.listdir("/dev/fd")))
    except (OSError, ValueError):
        highest = os.sysconf("SC_OPEN_MAX")
    os.closerange(0, descriptor)
    os.closerange(descriptor + 1, highest + 1)


def _limit_resources() -> bool:
    try:
        import resource
    except ImportError:
        return False
    for name in ("RLIMIT_FSIZE", "RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE"):
        if (number := getattr(resource, name, None)) is not None:
            try:
                resource.setrlimit(number, (0, 0))
            except (OSError, ValueError):
                return False
    return True


def _filter_system_calls(libc: ctypes.CDLL, descriptor: int) -> bool:
    known = _NUMBERS.get(platform.machine())
    if known is None:
        return False
    arch, numbers = known
    program = _program(arch, numbers, descriptor)
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    filter = Program(len(program) // 8, ctypes.addressof(buffer))
    done = libc.syscall(numbers["seccomp"], _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(filter))
    return bool(done == 0)


def _program(arch: int, numbers: dict[str, int], descriptor: int) -> bytes:
    """The filter as classic BPF: each of its instructions is (code, jump if true, jump if false, constant)."""
    steps = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    steps += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]  # the x32 twin of each call
    for name in (*_ON_THE_DESCRIPTOR, *_ON_ITSELF):
        only = descriptor if name in _ON_THE_DESCRIPTOR else 0
        steps += [(_EQUAL, 0, 4, numbers[name]), (_LOAD, 0, 0, _ARGUMENT_0), (_EQUAL, 0, 1, only)]
        steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    for name in _NOT_EXECUTABLE:
        steps += [(_EQUAL, 0, 4, numbers[name]), (_LOAD, 0, 0, _ARGUMENT_2), (_ANY_BIT, 1, 0, _PROT_EXEC)]
        steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    for name, number in numbers.items():
        if name not in (*_ON_THE_DESCRIPTOR, *_ON_ITSELF, *_NOT_EXECUTABLE, "seccomp"):
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _DENY))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
