"""Walls around the process that calls `raise_walls`, for good: nothing in it and nothing it could become gets out again.

What stays possible is to compute, to read the given files and to use the pipes that are open. In the order of their raising:

jail        a mount, network and IPC namespace of its own, where the kernel lets us have one (as root, or in a user
            namespace): a file tree that holds the given folders and nothing else, no network interface, no /proc.
landlock    where the kernel has it (Linux 5.13 and newer): no file can be opened but the given ones.
user        started as root: the user `nobody`, no groups. Without a jail only where `nobody` can read the given folders.
limits      of processor time, memory and open files; no new process, no thread, no byte in a file, no core file.
capabilities: none, and no program could win them back.
seccomp     the system calls in `CALLS` and no others: none that opens a socket, starts or traces a process or a thread,
            sends a signal, opens a file for writing, or changes one.
python      the same is refused once more before the system is asked, with a message that says so.

Any one of them may have a hole. Needed are seccomp and limits, and for the files one of jail, landlock and user: without them
`raise_walls` raises OSError. Only the standard library is used: a bare interpreter imports this file.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# what a process may ask of the kernel once the walls stand: its numbers on x86_64 and aarch64 (None: not there)
CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62), "pread64": (17, 67), "readv": (19, 65),
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "getdents64": (217, 61),
    "poll": (7, None), "ppoll": (271, 73), "brk": (12, 214), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "mremap": (25, 216), "madvise": (28, 233), "futex": (202, 98), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128), "sched_yield": (24, 124),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165), "getrandom": (318, 278),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "rseq": (334, 293), "set_robust_list": (273, 99),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
OPENAT = (257, 56)  # allowed for reading alone
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # the kernel's own numbers for the kinds of processor we know
WRITES = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, the bit of O_TMPFILE
NOBODY = 65534
# events of Python's audit hooks that are refused, by how they begin
EVENTS = ("socket.", "subprocess.", "ctypes.", "os.fork", "os.exec", "os.posix_spawn", "os.system", "os.kill", "signal.")


class Limits(NamedTuple):
    """The most that may be used: whole seconds of processor time, bytes of address space, open files."""

    seconds: int = 5
    memory: int = 512 << 20
    files: int = 64


def raise_walls(limits: Limits, folders: list[str], readable: list[str], hidden: list[str]) -> list[str]:
    """Raise them and say which ones stand.

    `folders` are all that a jail shows, less what is `hidden` in them; of their contents landlock lets the `readable` files and
    folders be read, and the names of the others. Raises OSError when what is needed cannot be had.
    """
    wanted: dict[str, Callable[[], None]] = {
        "jail": lambda: _jail(folders, hidden),
        "landlock": lambda: _landlock(folders, readable),
        "user": lambda: _become_nobody(folders),
    }
    walls = [name for name, wall in wanted.items() if _has(wall)]
    if not walls:
        raise OSError("the kernel gives neither namespaces nor Landlock, so its files cannot be hidden")
    _limit(limits)
    _drop_capabilities()
    hide_memory()
    die_with_parent()
    _filter_calls()
    sys.addaudithook(_refuse)
    return [*walls, "limits", "capabilities", "seccomp", "python"]


def die_with_parent() -> None:
    """Have this process killed when the thread that started it ends. A change of user undoes it."""
    _prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def hide_memory() -> None:
    """Let no other process of this user look into this one's memory."""
    _prctl(4, 0)  # PR_SET_DUMPABLE


def _has(wall: Callable[[], None]) -> bool:
    try:
        wall()
    except OSError:
        return False
    return True


def _open_to_all(path: str) -> bool:
    """Whether every user may read the folder."""
    parts = path.split("/")
    return all(os.stat("/".join(parts[: n + 1]) or "/").st_mode & 0o5 == 0o5 for n in range(len(parts)))


def _jail(folders: list[str], hidden: list[str]) -> None:
    """Show this process its own small file tree, built on top of /proc, which nobody in there is to see."""
    libc, user, group = _libc(), os.geteuid(), os.getegid()
    spaces = 0x00020000 | 0x40000000 | 0x08000000 | 0x04000000  # CLONE_NEWNS, _NEWNET, _NEWIPC, _NEWUTS
    if libc.unshare(spaces):
        _checked(libc.unshare(spaces | 0x10000000))  # CLONE_NEWUSER, in which everyone may have the others
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    root = "/proc"
    os.umask(0o022)
    _mount("/", "/", 1 << 18 | 1 << 14)  # MS_PRIVATE, MS_REC: what we mount, nobody else sees
    _mount("none", root, 2 | 4 | 8, "tmpfs", "mode=755,size=64k")  # MS_NOSUID, MS_NODEV, MS_NOEXEC
    for folder in folders:
        os.makedirs(root + folder, exist_ok=True)
        _mount(folder, root + folder, 1 << 12 | 1 << 14)  # MS_BIND, MS_REC
    for folder in hidden:
        if os.path.isdir(root + folder):
            _mount("none", root + folder, 1, "tmpfs", "size=4k")  # MS_RDONLY
    os.chroot(root)
    os.chdir("/")


def _landlock(folders: list[str], readable: list[str]) -> None:
    """Let this process list the folders and open no file but the `readable` ones."""
    libc = _libc()
    version = _checked(libc.syscall(444, None, 0, 1))  # landlock_create_ruleset, asked for its version
    known = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)  # how many kinds of access that version knows
    handled = ctypes.create_string_buffer(struct.pack("Q", (1 << known) - 1), 8)
    rules = _checked(libc.syscall(444, handled, 8, 0))
    read, look = 1 << 2, 1 << 3  # READ_FILE, READ_DIR
    allowed = {path: look for path in folders} | {path: read | look if os.path.isdir(path) else read for path in readable}
    for path, access in allowed.items():
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, place), 12)
        _checked(libc.syscall(445, rules, 1, rule, 0))  # landlock_add_rule, LANDLOCK_RULE_PATH_BENEATH
        os.close(place)
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    _checked(libc.syscall(446, rules, 0))  # landlock_restrict_self
    os.close(rules)


def _become_nobody(folders: list[str]) -> None:
    if os.geteuid() != 0 or not all(map(_open_to_all, folders)):
        raise PermissionError("not root, or nobody could not read the library")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _limit(limits: Limits) -> None:
    import resource as r

    # no limit of processor time below which the process would be asked first: it could refuse
    wanted = {r.RLIMIT_CPU: limits.seconds, r.RLIMIT_AS: limits.memory, r.RLIMIT_NOFILE: limits.files}
    for kind in (r.RLIMIT_NPROC, r.RLIMIT_FSIZE, r.RLIMIT_CORE, r.RLIMIT_MEMLOCK):
        wanted[kind] = 0
    for kind, most in wanted.items():
        r.setrlimit(kind, (most, most))


def _drop_capabilities() -> None:
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    _checked(_libc().capset(struct.pack("=Ii", 0x20080522, 0), bytes(24)))


def _filter_calls() -> None:
    """Have the kernel refuse every system call but those in `CALLS`."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    code = b"".join(_program(platform.machine()))
    _prctl(22, 2, ctypes.byref(Program(len(code) // 8, code)))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _program(machine: str) -> Iterator[bytes]:
    """The filter as BPF. Raises OSError on a processor whose numbers we do not know."""
    if machine not in MACHINES:
        raise OSError(f"no list of system calls for {machine}; known: {', '.join(MACHINES)}")
    column = list(MACHINES).index(machine)

    def op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    allow, refuse = op(answer, 0x7FFF0000), op(answer, 0x00050001)  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM
    yield from (op(load, 4), op(equal, MACHINES[machine], yes=1), refuse)  # another kind of processor has other numbers
    yield op(load, 0)
    for numbers in CALLS.values():
        if (number := numbers[column]) is not None:
            yield from (op(equal, number, no=1), allow)
    yield from (op(equal, OPENAT[column], yes=1), refuse)
    yield from (op(load, 32), op(any_bit, WRITES, no=1), refuse, allow)  # the low half of the third argument: the flags


def _refuse(event: str, _: Any) -> None:
    if event.startswith(EVENTS):
        raise PermissionError(f"not in here: {event}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, flags: int, kind: str = "none", options: str = "") -> None:
    names = (name.encode() for name in (source, target, kind))
    _checked(_libc().mount(*names, ctypes.c_ulong(flags), options.encode()))


def _prctl(option: int, *values: Any) -> None:
    whole = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in (*values, 0, 0, 0, 0)[:4]]
    _checked(_libc().prctl(option, *whole))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
