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
import tempfile

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


def unzstd(data, dictionary=b""):
    try:
        from compression import zstd  # Python 3.14

        return zstd.decompress(data, zstd.ZstdDict(dictionary, is_raw=True) if dictionary else None)
    except ImportError:
        pass
    try:
        import zstandard

        raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        return zstandard.ZstdDecompressor(dict_data=raw if dictionary else None).decompress(data)
    except ImportError:
        with tempfile.NamedTemporaryFile() as file:
            file.write(dictionary)
            file.flush()
            command = ["zstd", "-dcq"] + (["-D", file.name] if dictionary else [])
            return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def u(data, at, size):
    return int.from_bytes(data[at : at + size], "little")


def header(data):
    assert data[:8] == MAGIC, "not a bundle"
    assert crc32c(data[:60]) == u(data, 60, 4), "damaged header"
    assert u(data, 8, 2) in (1, 2), "another major version"
    assert u(data, 12, 4) == 0, "features that must be understood"
    assert data[20:24] == bytes([0x6C, 0x61, 32, 8]), "another layout"
    return u(data, 8, 2), u(data, 10, 2)


def frame(data, at):
    """(kind, cell, content, end) of the frame at `at`, or None where it is not whole."""
    if at + 24 > len(data):
        return None
    length, raw = u(data, at, 4), u(data, at + 8, 4)
    if max(length, raw) > LIMITS.get(u(data, at + 4, 2), 16 << 20) or data[at + 6] > 2 or data[at + 7] != 0:
        return None
    end = at + 24 + length
    if end > len(data) or crc32c(data[at : end - 8]) != u(data, end - 8, 4) or u(data, end - 4, 4) != length:
        return None
    stored = data[at + 16 : end - 8]
    content = stored
    if data[at + 6] == 1:
        content = unzstd(stored)
    if data[at + 6] == 2:
        numbers = Bytes(stored)
        before = dictionary(data, at - numbers.number())
        content = unzstd(numbers.rest(), before)
    assert len(content) == raw, "does not decompress to its length"
    return u(data, at + 4, 2), u(data, at + 12, 4), content, end


def dictionary(data, at):
    """What the frame at `at` is compressed with, and its content."""
    known = dictionary.__dict__.setdefault("known", {})
    if at not in known:
        whole = frame(data, at)
        assert whole and whole[0] == 1, "no dictionary"
        before = b""
        if data[at + 6] == 2:
            before = dictionary(data, at - Bytes(data[at + 16 :]).number())
        known[at] = before + whole[2]
        assert len(known[at]) <= 256 << 10, "too long a dictionary"
    return known[at]


class Bytes:
    """Bytes that are read from the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def rest(self):
        return self.data[self.at :]

    def take(self, count):
        assert self.at + count <= len(self.data), "ends early"
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self):
        number = 0
        for place in range(10):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                assert (byte or not place) and number < 1 << 64, "not the shortest encoding"
                return number
        assert False, "a number without an end"

    def signed(self):
        number = self.number()
        return number >> 1 if number % 2 == 0 else -(number >> 1) - 1


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
        for name, fields in self.shapes(body):
            yield name, [(field, self.of(text)) for field, text in fields]

    @staticmethod
    def shapes(body):
        for part in parts(body):
            name, rest = re.fullmatch(r"(\w+)\s*(.*)", part, re.S).groups()
            if rest.startswith("("):
                yield name, [("it", rest[1:-1])]
            else:
                yield name, [field.split(":", 1) for field in parts(rest.strip("{} "))]


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


# The entries of a chunk, by columns. Which numbers are differences, and to what.

DIFFERENCES = {
    ("Exchange", "began_ns"): "at_ns",
    ("Exchange", "ended_ns"): "at_ns",
    ("Exchange", "began_seq"): "seq",
    ("Decision", "matched"): "step",
    ("Decision", "draw"): "step",
}


def leb128(number):
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


class Columns:
    def __init__(self, types, chunk):
        self.types, self.count = types, chunk["entries"]
        self.columns, texts = Bytes(bytes(chunk["columns"])), Bytes(bytes(chunk["texts"]))
        self.templates = []
        while texts.rest():
            self.templates.append(list(self.pieces(Bytes(texts.take(texts.number())))))

    @staticmethod
    def pieces(template):
        """(what, operand) of every piece."""
        while template.rest():
            byte = template.take(1)
            if byte[0] < 0xF8:
                yield "literal", byte
            elif byte[0] == 0xFF:
                yield "literal", template.take(1)
            else:
                has_operand = byte[0] in (0xF9, 0xFA)
                yield byte[0], template.take(1)[0] if has_operand else 0

    def hole(self, what, operand):
        """The next value of a hole as the bytes that stand in the text."""
        if what == 0xFC:
            return (self.columns.signed() & (1 << 64) - 1).to_bytes(8, "little")
        if what == 0xFA:
            return self.columns.take((operand + 1) // 2).hex()[-operand:].encode()
        if what == 0xFB:
            h = self.columns.take(16).hex()
            return "-".join([h[:8], h[8:12], h[12:16], h[16:20], h[20:]]).encode()
        return str(self.columns.number()).rjust(operand, "0").encode()

    def texts(self, count):
        """(number of the template, bytes) of every text of a column."""
        places, mine, values = [self.columns.number() for _ in range(count)], [], {}
        for _ in range(max(places, default=-1) + 1):
            mine.append((mine[-1] + 1 if mine else 0) + self.columns.signed())
        numbers = [mine[place] for place in places]
        for number in sorted(set(numbers)):
            holes = [piece for piece in self.templates[number] if piece[0] in range(0xF8, 0xFD)]
            values[number] = [iter([self.hole(*hole) for _ in range(numbers.count(number))]) for hole in holes]
        return [(number, self.render(self.templates[number], iter(values[number]))) for number in numbers]

    @staticmethod
    def render(template, holes):
        text, begun = b"", None
        for what, operand in template:
            if what == "literal":
                text += operand
            elif what == 0xFD:
                begun = len(text)
            elif what == 0xFE:
                text = text[:begun] + leb128(len(text) - begun) + text[begun:]
            else:
                text += next(next(holes))
        return text

    def steps(self, count):
        last, found = 0, []
        for _ in range(count):
            last = (last + self.columns.signed()) % (1 << 64)
            found.append(last)
        return found

    def before(self, what, of):
        return [(entry[what] - self.columns.signed()) % (1 << 64) for entry in of]

    def tags(self, count, bound):
        tags = list(self.columns.take(count))
        assert all(tag < bound for tag in tags), "no such tag"
        return tags

    def many(self, text, of):
        """As many values of a type as there are entries in `of`."""
        text, count = text.strip(), len(of)
        if text == "Vec<u8>":
            return [content for _, content in self.texts(count)]
        if text == "String":
            return [content.decode() for _, content in self.texts(count)]
        if text.startswith("Vec<"):
            lengths = [self.columns.number() for _ in of]
            items = iter(self.many(text[4:-1], [entry for entry, n in zip(of, lengths) for _ in range(n)]))
            return [[next(items) for _ in range(n)] for n in lengths]
        if text.startswith("Option<"):
            tags = self.tags(count, 2)
            some = iter(self.many(text[7:-1], [entry for entry, tag in zip(of, tags) if tag]))
            return [next(some) if tag else None for tag in tags]
        if text.startswith("["):
            return [self.columns.take(int(text[1:-1].split(";")[1])) for _ in of]
        if text == "bool":
            return [tag == 1 for tag in self.tags(count, 2)]
        if re.fullmatch(r"u\d+", text):
            return [self.columns.number() for _ in of]
        if re.fullmatch(r"i\d+", text):
            return [self.columns.signed() for _ in of]
        kind, body = self.types.declared[text]
        if kind == "struct":
            return self.structs(text, [part.split(":", 1) for part in parts(body)], of)
        variants = list(self.types.shapes(body))
        tags = self.tags(count, len(variants))
        found = []
        for number, (name, fields) in enumerate(variants):
            found.append(iter(self.structs(name, fields, [entry for entry, tag in zip(of, tags) if tag == number])))
        return [(variants[tag][0], next(found[tag])) for tag in tags]

    def structs(self, name, fields, of):
        found = []
        for field, text in fields:
            by = DIFFERENCES.get((name, field))
            if by is None:
                found.append(self.many(text, of))
            else:
                found.append(self.steps(len(of)) if by == "step" else self.before(by, of))
        return [dict(zip([field for field, _ in fields], values)) for values in zip(*found)] if fields else [{} for _ in of]

    def entries(self, cell):
        seqs, times = self.steps(self.count), self.steps(self.count)
        of = [{"seq": seq, "at_ns": at_ns, "cell": cell} for seq, at_ns in zip(seqs, times)]
        phases, actors = self.many("Phase", of), self.many("String", of)
        streams, expected, ordinals = self.texts(self.count), {}, []
        for number, _ in streams:
            ordinals.append((expected.get(number, 0) + self.columns.signed()) % (1 << 64))
            expected[number] = ordinals[-1] + 1
        caused = self.tags(self.count, 2)
        causes = iter(self.before("seq", [entry for entry, tag in zip(of, caused) if tag]))
        bodies = self.many("Body", of)
        assert not self.columns.rest(), "bytes are left over"
        for n, entry in enumerate(of):
            entry["phase"], entry["actor"], entry["stream"] = phases[n], actors[n], streams[n][1].decode()
            entry["ordinal"], entry["cause"] = ordinals[n], next(causes) if caused[n] else None
            entry["body"] = bodies[n]
        return of


FORMAT = pathlib.Path(__file__).resolve().parents[2] / "bundle-format" / "FORMAT.md"
TYPES = Types(FORMAT.read_text())
SUMMARY, INDEX, CHUNK, ENTRIES = TYPES.named("CellSummary"), TYPES.named("Index"), TYPES.named("Chunk"), vec(TYPES.named("Entry"))


def root(content, kind):
    size, _, read = kind
    return read(content, len(content) - size)


LIMITS = {1: 16 << 20, 2: (512 << 20) + 32, 3: 16 << 20, 4: 256 << 20, 5: 64}


def chunk(data, cell, content):
    """The entries of a chunk."""
    if u(data, 8, 2) == 1:
        return root(content, ENTRIES)
    return Columns(TYPES, root(content, CHUNK)).entries(cell)


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
        for entry in chunk(data, cell, content) if kind == 1 else []:
            body, fields = entry["body"]
            if body == "CellStarted":
                found.setdefault(cell, {**fields["it"], "cell": cell, "verdict": None})
            if body == "Verdict" and cell in found:
                found[cell]["verdict"] = fields["it"]
    return False, [found[cell] for cell in sorted(found)]


def entries(data):
    """Every entry of the file, its cell checked, in order of `seq`."""
    found = []
    for kind, cell, content in frames(data):
        if kind == 1:
            found += chunk(data, cell, content)
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
