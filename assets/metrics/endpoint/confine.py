"""What the endpoint's process may reach, kept by the kernel (Landlock): a second line behind the guard's rules.

Here: the process gives up, for good, programs, outgoing connections, and files beyond its own. Not here: what statements say (guard.py).

Linux 5.13 or newer, connections from 6.7 on; elsewhere `not_kept` says what is open.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same numbers on every architecture
_PR_SET_NO_NEW_PRIVS = 38
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_CHANGES = sum(1 << bit for bit in range(4, 13))  # remove, make
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # from ABI 2 and 3 on
_CONNECT_TCP = 2  # from ABI 4 on
# What the interpreter, its libraries and the engine read besides: code, time zones, the machine's own figures.
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/localtime", "/etc/timezone", "/etc/ld.so.cache", "/proc", "/sys", "/opt")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def confine(folders: Iterable[str | Path], reads: Iterable[str | Path] | None, around: Iterable[str | Path] = ()) -> bool:
    """Confine this thread, and those it starts from now on, to `folders`; False where the kernel cannot.

    They can start no program and open no connection, and write nowhere else. reads: what else they may read, beside the system's and Python's
    own files; None for anything. around: folders in which they may do all but read a file. Threads that run
    already keep their rights.
    """
    version = _version()
    if version < 1:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    change = _WRITE_FILE | _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    read = _READ_FILE | _READ_DIR
    handled = _EXECUTE | change | (read if reads is not None else 0)
    rules = _Ruleset(handled, _CONNECT_TCP if version >= 4 else 0)
    size = ctypes.sizeof(rules) if version >= 4 else 8
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        own = {str(folder): change | _READ_DIR for folder in around} | {str(folder): change | read for folder in folders}
        allowed = own | {one: _READ_FILE | _WRITE_FILE for one in _DEVICES}
        if reads is not None:
            # Not sys.path: the project's root may be in it, with a home and its secrets beside the code.
            python = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *_packages()}
            allowed |= dict.fromkeys(map(str, {*_SYSTEM, *python, *reads}), read)
            allowed |= own
        for path, rights in allowed.items():
            _allow(libc, ruleset, path, rights & handled)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)) == 0
    finally:
        os.close(ruleset)


def not_kept() -> str | None:
    """What this kernel cannot keep, None where it can keep all that `confine` asks for."""
    version = _version()
    return "this kernel has no Landlock (Linux 5.13 or newer)" if version < 1 else (
        "this kernel keeps files and programs, but not connections (Linux 6.7 or newer)" if version < 4 else None
    )  # fmt: skip


def _version() -> int:
    if sys.platform != "linux":
        return 0
    return ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


def _packages() -> Iterator[str]:
    """Folders of our own packages that are loaded: their modules are read where they are used."""
    for name in ("assets", "dagster_project"):
        yield from getattr(sys.modules.get(name), "__path__", ())


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
        if rights:
            rule = _Beneath(rights, parent)
            libc.syscall(_ADD, ruleset, ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(parent)
