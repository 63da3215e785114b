"""A folder of wheels for a machine with a GPU and no network: `make gpu-wheels`.

    .venv/bin/python -m benchmarks.gpu.wheels [--to build/gpu-wheels] [--capability 9.0] [--python 3.12] [--from FOLDER] [--stored]

Downloads what `make bench-gpu` needs beside PyTorch and what it brings along (numpy, pandas, pyarrow, numba, scikit-learn are expected on the
machine), in the versions of .ci/constraints-gpu.txt, and prunes fbgemm-gpu to one GPU architecture: its wheel holds machine code for several, of
which a machine uses one. Nothing else of it changes.

An .so file keeps its GPU code in the section .nv_fatbin: containers one after the other, each a header and entries (machine code or PTX for one
architecture, header and payload). The entries of other architectures keep their headers and lose their payload to zeros, which compress to
nothing; the CUDA loader chooses an entry by its header and never looks at the others.

Here: which wheels, and the pruning. Not here: installing them and measuring (__main__.py). Only the standard library is imported.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build" / "gpu-wheels"
CONSTRAINTS = ROOT / ".ci" / "constraints-gpu.txt"

# Needed beside what a machine with PyTorch has. torchrec asks for torchmetrics 1.0.3, which only its metrics use: not imported here.
PACKAGES = (
    "fbgemm-gpu", "torchrec", "tensordict", "pyvers", "pyre-extensions", "typing-inspect", "mypy-extensions", "portalocker", "tqdm",
    "importlib-metadata", "zipp", "cloudpickle", "deltalake", "arro3-core", "deprecated", "wrapt", "polars", "polars-runtime-32", "xxhash",
)  # fmt: skip
SOURCES = ("iopath",)  # no wheel of it is published: one is built
PRUNED = "fbgemm-gpu"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux1_x86_64")  # fmt: skip

SECTION = b".nv_fatbin"
CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of what follows
MAGIC = 0xBA55ED50
ENTRY = struct.Struct("<HHIQIIHHI")  # kind, version, bytes of this header, of the payload, compressed, options, minor, major, architecture
PTX, CUBIN = 1, 2


class WheelError(Exception):
    """A wheel that cannot be pruned; the message names the file and what it lacks."""


@dataclass(frozen=True)
class Entry:
    """Code for one architecture: its payload lies at [start, start + size) of the file. architecture: 90 for sm_90 or compute_90."""

    kind: int
    architecture: int
    start: int
    size: int


def containers(data: bytes | bytearray) -> list[list[Entry]]:
    """The entries of each container of an ELF file's GPU code; none where the file has no such section.

    Raises WheelError where the section is not containers from end to end: then nothing of it is understood.
    """
    found = []
    for start, size in _sections(data):
        at, end = start, start + size
        while at < end:
            if not any(data[at : at + 8]):  # containers begin at multiples of 8
                at += 8
                continue
            magic, _, header, length = CONTAINER.unpack_from(data, at)
            if magic != MAGIC or at + header + length > end:
                raise WheelError(f"no container of GPU code at byte {at}")
            found.append(list(_entries(data, at + header, at + header + length)))
            at += header + length
    return found


def _entries(data: bytes | bytearray, at: int, end: int) -> Iterator[Entry]:
    while at < end:
        kind, _, header, size, _, _, _, _, architecture = ENTRY.unpack_from(data, at)
        if kind not in (PTX, CUBIN) or at + header + size > end:
            raise WheelError(f"no entry of GPU code at byte {at}")
        yield Entry(kind, architecture, at + header, size)
        at += header + size


def _sections(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Offset and size of the sections that hold GPU code, of a 64-bit little-endian ELF file."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise WheelError("not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", data, 40)
    width, count, names = struct.unpack_from("<HHH", data, 58)
    heads = [struct.unpack_from("<IIQQQQ", data, table + i * width) for i in range(count)]
    texts = heads[names][4]
    named = [(bytes(data[texts + head[0] : data.index(b"\0", texts + head[0])]), head) for head in heads]
    return [(head[4], head[5]) for name, head in named if name == SECTION]


def needed(entries: list[Entry], architecture: int) -> Entry | None:
    """What a GPU of this architecture runs: its own machine code, else the newest that is older within its generation, else PTX."""
    generation = architecture // 10
    code = [e for e in entries if e.kind == CUBIN and e.architecture // 10 == generation and e.architecture <= architecture]
    text = [e for e in entries if e.kind == PTX and e.architecture <= architecture]
    return max(code or text, key=lambda e: e.architecture, default=None)


def prune(data: bytearray, architecture: int) -> tuple[int, int]:
    """Overwrite with zeros what a GPU of this architecture does not run; bytes of GPU code (before, after).

    Raises WheelError where a container has nothing that such a GPU runs.
    """
    before = after = 0
    for entries in containers(data):
        if not entries:
            continue
        kept = needed(entries, architecture)
        if kept is None:
            there = ", ".join(f"{'compute' if e.kind == PTX else 'sm'}_{e.architecture}" for e in entries)
            raise WheelError(f"a container has no code for sm_{architecture}, only for {there}")
        before += sum(e.size for e in entries)
        after += kept.size
        for entry in entries:
            if entry != kept:
                data[entry.start : entry.start + entry.size] = bytes(entry.size)
    return before, after


def rewrite(source: Path, target: Path, architecture: int | None = None, stored: bool = False) -> tuple[int, int]:
    """Write the wheel `source` to `target` with RECORD made anew; bytes of GPU code (before, after).

    architecture: its .so files are pruned to that (90: sm_90); None: they stay. stored: without compression. Raises WheelError.
    """
    total = [0, 0]
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        names = [name for name in old.namelist() if not name.endswith("/")]
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        lines = []
        for name in names:
            if name == record:
                continue
            data = bytearray(old.read(name))
            if architecture is not None and name.endswith(".so"):
                try:
                    total = [a + b for a, b in zip(total, prune(data, architecture))]
                except WheelError as error:
                    raise WheelError(f"{source.name}: {name}: {error}") from None
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}")
            new.writestr(old.getinfo(name), data, method)
        new.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")
    return total[0], total[1]


def pins() -> dict[str, str]:
    lines = (line.split("==") for line in CONSTRAINTS.read_text().split() if "==" in line)
    return {name: version for name, version in lines}


def download(to: Path, python: str, packages: tuple[str, ...] = PACKAGES) -> None:
    to.mkdir(parents=True, exist_ok=True)
    pinned = pins()
    wanted, built = ([f"{name}=={pinned[name]}" if name in pinned else name for name in names] for names in (packages, SOURCES))
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
         *platforms, "-d", str(to), *wanted],
        check=True,
    )  # fmt: skip
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(to), *built], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.wheels", description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument("--capability", default="9.0", help="of the GPU: 8.0 A100, 9.0 H100 and H200, 10.0 B200")
    parser.add_argument("--python", default="3.12", help="the version on that machine")
    parser.add_argument("--from", dest="given", type=Path, help="a folder that holds wheels already: only prune, download nothing")
    parser.add_argument("--stored", action="store_true", help="wheels without compression: as a whole they compress much better")
    options = parser.parse_args()
    architecture = int(options.capability.replace(".", ""))
    given = options.given or options.to.with_name(options.to.name + "-whole")
    if options.given is None:
        download(given, options.python)
    options.to.mkdir(parents=True, exist_ok=True)
    for wheel in sorted(given.glob("*.whl")):
        pruned = wheel.name.startswith(PRUNED.replace("-", "_") + "-")
        try:
            before, after = rewrite(wheel, options.to / wheel.name, architecture if pruned else None, options.stored)
        except WheelError as error:
            sys.exit(f"{error}; choose another --capability")
        if pruned:
            print(f"{wheel.name}: GPU code {before / 1e6:,.0f} MB, for sm_{architecture} {after / 1e6:,.0f} MB")
    held = sum(path.stat().st_size for path in options.to.glob("*.whl"))
    print(f"{options.to}: {held / 1e6:,.0f} MB; on the machine: make bench-gpu GPU_WHEELS=FOLDER")
    return 0


if __name__ == "__main__":
    sys.exit(main())
