"""Pruning a wheel's GPU code to one architecture, on made-up files."""

import base64
import hashlib
import struct
import zipfile

import pytest

from benchmarks.gpu import wheels
from benchmarks.gpu.wheels import CUBIN, PTX, WheelError, containers, prune, rewrite


def entry(kind: int, architecture: int, payload: bytes, header: int = 64) -> bytes:
    head = wheels.ENTRY.pack(kind, 0x101, header, len(payload), 0, 0, 1, 8, architecture)
    return head.ljust(header, b"\x11") + payload


def container(*entries: bytes) -> bytes:
    inside = b"".join(entries)
    return wheels.CONTAINER.pack(wheels.MAGIC, 1, 16, len(inside)) + inside


def elf(gpu_code: bytes, section: bytes = b".nv_fatbin") -> bytearray:
    """An ELF file of three sections: none, the GPU code, the sections' names."""
    names = b"\0" + section + b"\0.shstrtab\0"
    code_at = 64
    names_at = code_at + len(gpu_code)
    table_at = names_at + len(names)
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 40, table_at)
    struct.pack_into("<HHH", head, 58, 64, 3, 2)

    def row(name: int, at: int, size: int) -> bytes:
        return struct.pack("<IIQQQQ", name, 1, 0, 0, at, size).ljust(64, b"\0")

    table = row(0, 0, 0) + row(1, code_at, len(gpu_code)) + row(2 + len(section), names_at, len(names))
    return bytearray(bytes(head) + gpu_code + names + table)


A80, A90, A100 = b"a" * 32, b"b" * 48, b"c" * 16
BOTH = container(entry(CUBIN, 80, A80), entry(CUBIN, 90, A90), entry(CUBIN, 100, A100, header=112))


def test_other_architectures_lose_their_payload_and_nothing_else_changes():
    data = elf(BOTH + b"\0" * 8 + BOTH)  # containers are aligned: zeros between them
    whole = bytes(data)
    assert prune(data, 90) == (2 * (32 + 48 + 16), 2 * 48)
    assert bytes(data) == whole.replace(A80, bytes(32)).replace(A100, bytes(16))
    assert [[(e.kind, e.architecture) for e in of] for of in containers(data)] == [[(CUBIN, 80), (CUBIN, 90), (CUBIN, 100)]] * 2


@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        ([(CUBIN, 80, A80), (CUBIN, 90, A90)], A80),  # an 8.6 runs the machine code of 8.0, not of 9.0
        ([(CUBIN, 75, A90), (PTX, 80, A80), (PTX, 70, A100)], A80),  # none of its generation: the newest PTX that is old enough
        ([(PTX, 80, A80), (CUBIN, 86, A90)], A90),
    ],
)
def test_what_a_gpu_runs(entries, kept):
    data = elf(container(*(entry(*one) for one in entries)))
    prune(data, 86)
    assert [payload for _, _, payload in entries if payload in data] == [kept]


def test_a_container_without_code_for_the_gpu_is_an_error():
    with pytest.raises(WheelError, match="no code for sm_75, only for sm_80, sm_90, sm_100"):
        prune(elf(BOTH), 75)


@pytest.mark.parametrize("broken", [b"\x01" * 32, BOTH[:-8], container(entry(7, 90, A90))])
def test_a_section_that_is_not_understood_is_an_error(broken):
    with pytest.raises(WheelError):
        prune(elf(broken), 90)


def test_a_file_without_gpu_code_stays():
    data = elf(BOTH, section=b".nv_other_")
    whole = bytes(data)
    assert prune(data, 90) == (0, 0)
    assert data == whole


@pytest.mark.parametrize(("architecture", "sizes"), [(90, (96, 48)), (None, (0, 0))])
@pytest.mark.parametrize("stored", [False, True])
def test_a_wheel_keeps_its_files_and_has_a_true_record(tmp_path, architecture, sizes, stored):
    source, target = tmp_path / "x-1-py3-none-any.whl", tmp_path / "out.whl"
    with zipfile.ZipFile(source, "w") as wheel:
        wheel.writestr("x/a.so", bytes(elf(BOTH)))
        wheel.writestr("x/__init__.py", "pass\n")
        wheel.writestr("x-1.dist-info/RECORD", "stale\n")
    assert rewrite(source, target, architecture, stored) == sizes
    with zipfile.ZipFile(target) as wheel:
        assert wheel.testzip() is None
        assert (A80 in wheel.read("x/a.so")) == (architecture is None)
        assert wheel.read("x/__init__.py") == b"pass\n"
        for line in wheel.read("x-1.dist-info/RECORD").decode().splitlines():
            name, digest, size = line.split(",")
            if digest:
                content = wheel.read(name)
                assert int(size) == len(content)
                assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def test_a_wheel_that_is_not_understood_is_named(tmp_path):
    source = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(source, "w") as wheel:
        wheel.writestr("x/a.so", bytes(elf(BOTH)))
        wheel.writestr("x-1.dist-info/RECORD", "")
    with pytest.raises(WheelError, match=r"x-1-py3-none-any.whl: x/a.so: .* sm_75"):
        rewrite(source, tmp_path / "out.whl", 75)
