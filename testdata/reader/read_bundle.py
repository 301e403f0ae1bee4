#!/usr/bin/env python3
"""An independent reader of Faultbox bundles, written from bundle-format/FORMAT.md alone.

Lists the cells of a bundle with their verdicts. It proves that the document is enough; it is no
product: it reads what it needs and stops at the first thing that is wrong.

    python3 testdata/reader/read_bundle.py BUNDLE.fb

Needs the `zstd` program, or Python's `zstandard` or `compression.zstd` module.
"""

import struct
import subprocess
import sys

MAGIC = bytes.fromhex("8f4642580d0a1a0a")
ENDINGS = ["passed", "failed", "violated", "inconclusive", "error"]


def crc32c(data):
    table = crc32c.__dict__.setdefault("table", [])
    if not table:
        for n in range(256):
            for _ in range(8):
                n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
            table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def unzstd(data):
    try:
        from compression import zstd  # Python 3.14

        return zstd.decompress(data)
    except ImportError:
        pass
    try:
        import zstandard

        return zstandard.ZstdDecompressor().decompress(data)
    except ImportError:
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout


def u(data, at, size):
    return int.from_bytes(data[at : at + size], "little")


def header(data):
    assert data[:8] == MAGIC, "not a bundle"
    assert crc32c(data[:60]) == u(data, 60, 4), "damaged header"
    assert u(data, 8, 2) == 1, "another major version"
    assert u(data, 12, 4) == 0, "features that must be understood"
    assert data[20:24] == bytes([0x6C, 0x61, 32, 8]), "another layout"
    return u(data, 8, 2), u(data, 10, 2)


def frame(data, at):
    """(kind, cell, content, end) of the frame at `at`, or None where it is not whole."""
    if at + 24 > len(data):
        return None
    length, raw = u(data, at, 4), u(data, at + 8, 4)
    end = at + 24 + length
    if end > len(data) or crc32c(data[at : end - 8]) != u(data, end - 8, 4) or u(data, end - 4, 4) != length:
        return None
    stored = data[at + 16 : end - 8]
    content = unzstd(stored) if data[at + 6] == 1 else stored
    assert len(content) == raw, "does not decompress to its length"
    return u(data, at + 4, 2), u(data, at + 12, 4), content, end


# The records that are needed: a type is (size, alignment, read).


def integer(size):
    return size, size, lambda d, at: u(d, at, size)


U8, U16, U32, U64 = (integer(n) for n in (1, 2, 4, 8))
BOOL = (1, 1, lambda d, at: d[at] == 1)


def array(count):
    return count, 1, lambda d, at: d[at : at + count]


def read_string(d, at):
    if d[at] & 0xC0 != 0x80:
        return d[at : at + 8].split(b"\xff", 1)[0].decode()
    stored = u(d, at, 4)
    length = (stored & 0x3F) | ((stored & ~0xFF) >> 2)
    start = at + struct.unpack_from("<i", d, at + 4)[0]
    assert 0 <= start and start + length <= len(d), "text outside"
    return d[start : start + length].decode()


STRING = (8, 4, read_string)


def vec(item):
    size, _, read = item

    def go(d, at):
        start, count = at + struct.unpack_from("<i", d, at)[0], u(d, at + 4, 4)
        assert count == 0 or (0 <= start and start + count * size <= len(d)), "items outside"
        return [read(d, start + n * size) for n in range(count)]

    return 8, 4, go


def up(n, alignment):
    return (n + alignment - 1) // alignment * alignment


def record(**fields):
    places, at, widest = {}, 0, 1
    for name, (size, alignment, read) in fields.items():
        at = up(at, alignment)
        places[name] = (at, read)
        at, widest = at + size, max(widest, alignment)
    return up(at, widest), widest, lambda d, base: {n: read(d, base + off) for n, (off, read) in places.items()}


def option(item):
    size, alignment, read = item
    start = up(1, alignment)
    return up(start + size, alignment), alignment, lambda d, at: read(d, at + start) if d[at] == 1 else None


FAULT_COUNT = record(assumption=STRING, index=U32, rule=STRING, target=STRING, matched=U64, fired=U64)
VERDICT = record(
    ending=U8, reason=STRING, blame=U8, fired=vec(FAULT_COUNT), unreached=BOOL,
    scenario_ns=U64, cell_ns=U64, digest=array(32),
)
SUMMARY = record(
    cell=U32, name=STRING, scenario=STRING, assumption=option(STRING), expectation=STRING, verdict=option(VERDICT)
)
FRAME_REF = record(offset=U64, total=U64, kind=U16, cell=U32)
CHUNK_REF = record(frame=FRAME_REF, entries=U32, first_seq=U64, last_seq=U64, first_ns=U64, last_ns=U64)
BLOB_REF = record(hash=array(32), frame=FRAME_REF)
INDEX = record(chunks=vec(CHUNK_REF), blobs=vec(BLOB_REF), cells=vec(SUMMARY), unknown=vec(FRAME_REF))


def root(content, kind):
    size, _, read = kind
    return read(content, len(content) - size)


def cells(data):
    """(complete, cells) of a bundle."""
    footer = frame(data, len(data) - 88) if len(data) >= 64 + 88 else None
    if footer and footer[0] == 5:
        offset, total = u(footer[2], 0, 8), u(footer[2], 8, 8)
        index = frame(data, offset)
        assert index and index[0] == 4 and offset + total == len(data) - 88, "no index"
        return True, root(index[2], INDEX)["cells"]
    found, at = {}, 64
    while (whole := frame(data, at)) is not None:
        kind, cell, content, at = whole
        if kind == 3:
            found[cell] = root(content, SUMMARY)
    return False, [found[cell] for cell in sorted(found)]


def show(text):
    """Text from a bundle reaches the terminal without control sequences."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def main(path):
    data = open(path, "rb").read()
    version = header(data)
    complete, summaries = cells(data)
    print(f"format {version[0]}.{version[1]}, {'complete' if complete else 'incomplete'}, {len(summaries)} cells")
    for cell in summaries:
        verdict = cell["verdict"]
        if verdict is None:
            print(f"{show(cell['name'])}: no verdict")
            continue
        print(f"{show(cell['name'])}: {ENDINGS[verdict['ending']]} {verdict['digest'].hex()}", end="")
        fired = ", ".join(f"{show(f['rule'])} on {show(f['target'])} {f['fired']}x" for f in verdict["fired"])
        print(f" [{fired}]" if fired else "", end="")
        print(f" {show(verdict['reason'])}" if verdict["reason"] else "")


if __name__ == "__main__":
    main(sys.argv[1])
