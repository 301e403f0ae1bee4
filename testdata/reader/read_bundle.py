#!/usr/bin/env python3
"""An independent reader of Faultbox bundles, written from bundle-format/FORMAT.md alone.

Lists the cells of a bundle with their verdicts, and every entry if asked to. It proves that the document is
enough: even the types of the records are read out of it. It is no product: it stops at the first thing that
is wrong.

    python3 testdata/reader/read_bundle.py BUNDLE.fb [--entries]

Needs the `zstd` program, or Python's `zstandard` or `compression.zstd` module.
"""

import pathlib
import re
import struct
import subprocess
import sys

MAGIC = bytes.fromhex("8f4642580d0a1a0a")


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
    if max(length, raw) > LIMITS.get(u(data, at + 4, 2), 16 << 20) or data[at + 6] > 1 or data[at + 7] != 0:
        return None
    end = at + 24 + length
    if end > len(data) or crc32c(data[at : end - 8]) != u(data, end - 8, 4) or u(data, end - 4, 4) != length:
        return None
    stored = data[at + 16 : end - 8]
    content = unzstd(stored) if data[at + 6] == 1 else stored
    assert len(content) == raw, "does not decompress to its length"
    return u(data, at + 4, 2), u(data, at + 12, 4), content, end


# The records: a type is (size, alignment, read). Their declarations are read out of FORMAT.md.


def integer(size, signed=False):
    return size, size, lambda d, at: int.from_bytes(d[at : at + size], "little", signed=signed)


def read_bool(d, at):
    assert d[at] <= 1, "neither true nor false"
    return d[at] == 1


def read_string(d, at):
    if d[at] & 0xC0 != 0x80:
        return d[at : at + 8].split(b"\xff", 1)[0].decode()
    stored = u(d, at, 4)
    length = (stored & 0x3F) | ((stored >> 8) << 6)
    start = at + struct.unpack_from("<i", d, at + 4)[0]
    assert 0 <= start and start + length <= len(d), "text outside"
    return d[start : start + length].decode()


def vec(item):
    size, _, read = item

    def go(d, at):
        start, count = at + struct.unpack_from("<i", d, at)[0], u(d, at + 4, 4)
        assert count == 0 or (0 <= start and start + count * size <= len(d)), "items outside"
        return [read(d, start + n * size) for n in range(count)]

    return 8, 4, go


def up(n, alignment):
    return (n + alignment - 1) // alignment * alignment


def record(fields, start=0):
    places, at, widest = {}, start, 1
    for name, (size, alignment, read) in fields:
        at = up(at, alignment)
        places[name] = (at, read)
        at, widest = at + size, max(widest, alignment)
    return up(at, widest), widest, lambda d, base: {n: read(d, base + off) for n, (off, read) in places.items()}


def choice(variants):
    """An enum: what it reads is (name, fields)."""
    laid_out = [(name, record(fields, start=1)) for name, fields in variants]
    widest = max(alignment for _, (_, alignment, _) in laid_out)
    size = up(max(size for _, (size, _, _) in laid_out), widest)

    def go(d, at):
        assert d[at] < len(laid_out), "no such variant"
        name, (_, _, read) = laid_out[d[at]]
        return name, read(d, at)

    return size, widest, go


def option(item):
    some = choice([("none", []), ("some", [("it", item)])])
    return some[0], some[1], lambda d, at: some[2](d, at)[1].get("it")


def declarations(document):
    """Name to ("struct" or "enum", tokens) of every type that the document declares."""
    block = re.search(r"```types\n(.*?)```", document, re.S)[1]
    return {name: (kind, body) for kind, name, body in re.findall(r"(struct|enum) (\w+) \{(.*?)\}(?=\s*(?:struct|enum|$))", block, re.S)}


class Types:
    def __init__(self, document):
        self.declared, self.made = declarations(document), {}

    def named(self, name):
        if name not in self.made:
            kind, body = self.declared[name]
            self.made[name] = record(self.fields(body)) if kind == "struct" else choice(self.variants(body))
        return self.made[name]

    def of(self, text):
        text = text.strip()
        if text.startswith("Vec<"):
            return vec(self.of(text[4:-1]))
        if text.startswith("Option<"):
            return option(self.of(text[7:-1]))
        if text.startswith("["):
            size = int(text[1:-1].split(";")[1])
            return size, 1, lambda d, at: d[at : at + size]
        if text == "bool":
            return 1, 1, read_bool
        if text == "String":
            return 8, 4, read_string
        if re.fullmatch(r"[ui]\d+", text):
            return integer(int(text[1:]) // 8, text[0] == "i")
        return self.named(text)

    def fields(self, body):
        return [(name, self.of(text)) for name, text in (part.split(":", 1) for part in parts(body))]

    def variants(self, body):
        for part in parts(body):
            name, rest = re.fullmatch(r"(\w+)\s*(.*)", part, re.S).groups()
            if rest.startswith("("):
                yield name, [("it", self.of(rest[1:-1]))]
            else:
                yield name, self.fields(rest.strip("{} "))


def parts(body):
    """What stands between the outermost commas."""
    depth, part, found = 0, "", []
    for c in body + ",":
        depth += (c in "<({[") - (c in ">)}]")
        if c == "," and depth == 0:
            found.append(" ".join(part.split()))
            part = ""
        else:
            part += c
    return [part for part in found if part]


FORMAT = pathlib.Path(__file__).resolve().parents[2] / "bundle-format" / "FORMAT.md"
TYPES = Types(FORMAT.read_text())
SUMMARY, INDEX, ENTRIES = TYPES.named("CellSummary"), TYPES.named("Index"), vec(TYPES.named("Entry"))


def root(content, kind):
    size, _, read = kind
    return read(content, len(content) - size)


LIMITS = {1: 16 << 20, 2: (512 << 20) + 32, 3: 16 << 20, 4: 256 << 20, 5: 64}


def frames(data):
    """(kind, cell, content) of every whole frame, in order."""
    at = 64
    while (whole := frame(data, at)) is not None:
        kind, cell, content, at = whole
        yield kind, cell, content


def index(data):
    """The index of a finished bundle."""
    footer = frame(data, len(data) - 88) if len(data) >= 64 + 88 else None
    if not footer or footer[0] != 5 or footer[3] != len(data):
        return None
    offset, total = u(footer[2], 0, 8), u(footer[2], 8, 8)
    whole = frame(data, offset)
    assert whole and whole[0] == 4 and offset + total == len(data) - 88, "no index"
    return root(whole[2], INDEX)


def cells(data):
    """(complete, cells) of a bundle."""
    indexed = index(data)
    if indexed is not None:
        return True, indexed["cells"]
    found = {}
    for kind, cell, content in frames(data):
        if kind == 3:
            found[cell] = root(content, SUMMARY)
        for entry in root(content, ENTRIES) if kind == 1 else []:
            body, fields = entry["body"]
            if body == "CellStarted":
                found.setdefault(cell, {**fields["it"], "cell": cell, "verdict": None})
    return False, [found[cell] for cell in sorted(found)]


def entries(data):
    """Every entry of the file, its cell checked, in order of `seq`."""
    found = []
    for kind, cell, content in frames(data):
        if kind == 1:
            found += root(content, ENTRIES)
            assert all(entry["cell"] == cell for entry in found[-1:]), "an entry of another cell"
    return sorted(found, key=lambda entry: entry["seq"])


def show(text):
    """Text from a bundle reaches the terminal without control sequences."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def digest(verdict):
    return verdict["digest"].hex()


def main(path, *more):
    data = open(path, "rb").read()
    version = header(data)
    complete, summaries = cells(data)
    print(f"format {version[0]}.{version[1]}, {'complete' if complete else 'incomplete'}, {len(summaries)} cells")
    for cell in summaries:
        verdict = cell["verdict"]
        if verdict is None:
            print(f"{show(cell['name'])}: no verdict")
            continue
        print(f"{show(cell['name'])}: {verdict['ending'][0].lower()} {digest(verdict)}", end="")
        fired = ", ".join(f"{show(f['rule'])} on {show(f['target'])} {f['fired']}x" for f in verdict["fired"])
        print(f" [{fired}]" if fired else "", end="")
        print(f" {show(verdict['reason'])}" if verdict["reason"] else "")
    if "--entries" in more:
        for entry in entries(data):
            body, _ = entry["body"]
            place = f"{entry['cell']} {entry['phase'][0]} {show(entry['actor'])} {show(entry['stream'])}"
            print(f"{entry['seq']} {entry['at_ns']} {place} {entry['ordinal']} {body}")


if __name__ == "__main__":
    main(*sys.argv[1:])
