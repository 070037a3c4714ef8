"""Damage to archives, pickles, pictures and arrays that keeps the rest of the file as its checksums say."""

from __future__ import annotations

import ast
import io
import json
import pickle
import pickletools
import random
import struct
import zipfile
import zlib
from functools import cache

from hostile_files import zeros

from fuzzing import raw, texts

_BOMB = 1536 << 20

_NAMES = (
    "../../evil.png", "/evil.png", "..\\evil.png", "a/../../evil", "", "x\x00.png", "A" * 60_000, "é\ud7ff", "\n",
    "CON",
    "a/data.pkl", "data.pkl", "x.npy", "__MACOSX/x", "a/b/character01/0001_01.png", "a//b", "\x1b[31m.png",
)  # fmt: skip


def zip_damaged(rng: random.Random, data: bytes) -> bytes:
    """A zip whose members, names, sizes or directory are damaged; checksums fit unless they are what is wrong."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [
                [info.filename, archive.read(info), info.compress_type == 8]
                for info in archive.infolist()
            ]
    except Exception:  # a seed that is no whole archive
        return raw.damaged(rng, data, data)
    lies: dict[int, dict[str, int]] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not records:
            break
        at = rng.randrange(len(records))
        name, content, _ = records[at]
        kind = rng.randrange(12)
        if kind == 0:
            del records[at]
        elif kind == 1:
            records.insert(rng.randrange(len(records)), list(records[at]))
        elif kind == 2:
            records[at][0] = rng.choice((*_NAMES, rng.choice(records)[0], name.upper(), name + "x"))
        elif kind == 3:
            records[at][2] = not records[at][2]
        elif kind == 4:
            field = rng.choice(
                ("crc", "size", "full", "method", "flags", "start", "label", "extra", "wide")
            )
            lies.setdefault(at, {})[field] = rng.choice((*raw.INTEGERS, 8, 9, 12, 14, 93, 99))
        elif kind == 5:
            records[at][1] = rng.choice(records)[1]
        else:
            records[at][1] = damaged_as(rng, name, content, content)
    bomb = rng.random() < 0.004
    made = written(records, lies, bomb and rng.randrange(max(1, len(records))))
    return raw.damaged(rng, made, data) if rng.random() < 0.05 else made


def written(
    records: list[list[object]],
    lies: dict[int, dict[str, int]] | None = None,
    bomb: int | bool = False,
) -> bytes:
    """A zip of ``[name, content, packed]``, in which the directory may lie and one member be a bomb."""
    body, directory = bytearray(), bytearray()
    for i, (label, content, packed) in enumerate(records):
        assert isinstance(label, str) and isinstance(content, bytes)
        lie = (lies or {}).get(i, {})
        name = label.encode("utf-8", "surrogatepass")[:65_535]
        crc, full, kept = zlib.crc32(content), len(content), content
        if bomb is not False and i == bomb:
            kept, full, packed = zeros(_BOMB), _BOMB, True
        elif packed:
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            kept = packer.compress(content) + packer.flush()
        method = lie.get("method", 8 if packed else 0) & 0xFFFF
        flags = lie.get("flags", 0x800) & 0xFFFF
        crc, start = lie.get("crc", crc) & 0xFFFFFFFF, lie.get("start", len(body)) & 0xFFFFFFFF
        size, full = lie.get("size", len(kept)) & 0xFFFFFFFF, lie.get("full", full) & 0xFFFFFFFF
        extra = struct.pack("<2H3Q", 1, 24, full, size, start) if "wide" in lie else b""
        if "wide" in lie:
            size = full = 0xFFFFFFFF
        head = struct.pack("<5H3I", 20, flags, method, 0, 33, crc, size, full)
        length = lie.get("label", len(name)) & 0xFFFF
        more = lie.get("extra", len(extra)) & 0xFFFF
        body += b"PK\3\4" + head + struct.pack("<2H", length, 0) + name + kept
        directory += (
            b"PK\1\2\x14\0"
            + head
            + struct.pack("<5H2I", length, more, 0, 0, 0, 0, start)
            + name
            + extra
        )
    count = len(records)
    end = struct.pack("<4H2IH", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory) + b"PK\5\6" + end


_DESCR = (
    "'|O'", "'<f8'", "'|u1'", "'<U1000000000'", "'|S2147483647'", "'|V8'", "'<M8[ns]'", "'>i8'", "'<c16'", "'<f2'",
    "'?'",
    "[('a', '<f8')]", "[('a', [('b', '|O')])]", "'f8' * 9", "object", "''", "'x'", "'<U0'", "'|V0'", "1", "None",
    "'\\n'",
)  # fmt: skip
_SHAPES = (
    "()", "(0,)", "(1,)", "(-1,)", "(1000000000000,)", "(65536, 65536, 65536)", "(2,) * 64", "('a',)", "(1.5,)", "None",
    "(True,)", "(9" + "9" * 300 + ",)", "(0, 1000000000000)", "[2]", "(" * 300 + ")" * 300, "(1,) * 65", "(2, 2)",
)  # fmt: skip


def npy_damaged(rng: random.Random, data: bytes) -> bytes:
    """An array whose header says something else than its bytes."""
    if not data.startswith(b"\x93NUMPY\x01\x00") or rng.random() < 0.3:
        return raw.damaged(rng, data, data)
    length = int.from_bytes(data[8:10], "little")
    text, rest = data[10 : 10 + length].decode("latin-1").rstrip(), data[10 + length :]
    try:
        facts = {str(key): repr(value) for key, value in ast.literal_eval(text).items()}
    except (
        ValueError,
        TypeError,
        SyntaxError,
        AttributeError,
        MemoryError,
        RecursionError,
    ):  # damaged before
        return raw.damaged(rng, data, data)
    kind = rng.randrange(6)
    if kind == 0:
        facts["descr"] = rng.choice(_DESCR)
    elif kind == 1:
        facts["shape"] = rng.choice(_SHAPES)
    elif kind == 2:
        facts["fortran_order"] = rng.choice(("True", "1", "'x'", "[]"))
    elif kind == 3:
        facts[rng.choice(("x", "shape", "descr"))] = rng.choice((*_SHAPES, *_DESCR))
    elif kind == 4:
        facts = {key: facts[key] for key in list(facts)[:2]}
    else:
        rest = rest[: rng.randrange(len(rest) + 1)]
    header = "{" + ", ".join(f"{key!r}: {value}" for key, value in facts.items()) + "}\n"
    if kind == 0 and rng.random() < 0.1:
        header = rng.choice(
            ("(" * 5000, "{" * 9000, "[" * 60_000, "-" * 60_000, "f()", "__import__('os')", "")
        )
    version = rng.choice((1, 1, 1, 2, 3, 9))
    size = struct.pack("<H" if version == 1 else "<I", len(header) & 0xFFFF)
    return (
        b"\x93NUMPY"
        + bytes((version, 0))
        + size
        + header.encode("latin-1", "replace")[:65_535]
        + rest
    )


def _word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


_INSERTED = (
    b"cposix\nsystem\n" + _word("true") + b"\x85R", b"cbuiltins\neval\n" + _word("1") + b"\x85R",
    b"c__builtin__\nexec\n(tR", b"cnumpy\nzeros\n\x8a\x05\x00\x00\x00\x00\x40\x85R",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n",
    b"ctorch\nFloatStorage\n", b"ctorch\nTensor\n", b"ccollections\nOrderedDict\n)R", b"cbuiltins\nbytearray\n",
    b"cpkg.sub\nClass\n)R", b"c\n\n", b"c\xff\n\xff\n", b"\x8a\xff" + b"\x7f" * 255, b"\x8b\xff\xff\xff\x7f",
    b"J\xff\xff\xff\xff",
    b"\x8d" + b"\xff" * 7 + b"\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f", b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f",
    b"T\xff\xff\xff\xff", b"G" + b"\x7f\xf0" + b"\0" * 6, b"}", b"]", b"(", b")", b"t", b"l", b"d", b"u", b"e",
    b"s", b"a", b"b",
    b"R", b"0", b"1", b"2", b"N", b"\x88", b"\x85", b"\x86", b"\x87", b"\x81", b"\x8f", b"\x90", b"\x91", b"\x92",
    b"\x93",
    b"\x94", b"\x97", b"\x98", b"h\x00", b"h\xff", b"j\xff\xff\xff\x7f", b"q\x00", b"r\xff\xff\xff\x7f", b"p0\n",
    b"g0\n",
    b"p9999999999999\n", b"I99999999999999999999\n", b"I01\n", b"L1L\n", b"Fnan\n", b"S'a'\n", b"S\"\\x\"\n",
    b"V\\ud800\n",
    b"P0\n", b"Q", b"\x80\x05", b"\x80\xff", b"\x82\x01", b".", b"\x95" + b"\xff" * 8, b"ios\nsystem\n",
    b"(S'x'\nios\nsystem\n",
    b"ccopyreg\n_reconstructor\n", b")q\x00" + b"h\x00\x86q\x00" * 60, b"]" + b"\x85" * 3000, b"(" * 3000,
    b"]q\x07h\x07a",
)  # fmt: skip


def pickle_damaged(rng: random.Random, data: bytes) -> bytes:
    """A pickle with instructions left out, exchanged, repeated or added."""
    pieces, stream = [], io.BytesIO(data)
    try:
        while stream.tell() < len(data):
            starts = [place for _, _, place in pickletools.genops(stream) if place is not None]
            ends = [*starts[1:], stream.tell()]
            pieces += [data[a:b] for a, b in zip(starts, ends, strict=True)]
    except Exception:  # what follows the pickles: storages
        pieces.append(data[sum(map(len, pieces)) :])
    if len(pieces) < 2 or rng.random() < 0.2:
        return raw.damaged(rng, data, data)
    for _ in range(rng.choice((1, 1, 2, 2, 4, 10))):
        at = rng.randrange(len(pieces))
        kind = rng.randrange(7)
        if kind == 0:
            del pieces[at : at + rng.choice((1, 1, 3))]
        elif kind == 1:
            pieces.insert(at, rng.choice(pieces))
        elif kind == 2:
            pieces[at] = rng.choice(pieces)
        elif kind == 3:
            piece = bytearray(pieces[at])
            piece[rng.randrange(len(piece))] = rng.randrange(256)
            pieces[at] = bytes(piece)
        elif kind == 4:
            pieces[at] *= rng.choice((2, 3, 100))
        else:
            pieces.insert(at, rng.choice(_INSERTED))
        if len(pieces) < 2:
            break
    return b"".join(pieces)


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def png_damaged(rng: random.Random, data: bytes) -> bytes:
    """A picture with a chunk changed and its checksum made right again."""
    if not data.startswith(b"\x89PNG") or rng.random() < 0.3:
        return raw.damaged(rng, data, data)
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    if not chunks:
        return raw.damaged(rng, data, data)
    one = rng.choice(chunks)
    kind = rng.randrange(6)
    if kind == 0:
        sizes = (0, 1, 2, 9, 100, 20_000, 65_535, 1 << 24, (1 << 31) - 1, 1 << 31)
        head = struct.pack(">2I", rng.choice(sizes), rng.choice(sizes)) + bytes(
            rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(5)
        )
        chunks[0][1] = head if rng.random() < 0.6 else head[:8] + chunks[0][1][8:]
    elif kind == 1:
        chunks.remove(one)
    elif kind == 2:
        chunks.insert(rng.randrange(len(chunks)), one)
    elif kind == 3:
        name = rng.choice(
            (
                b"tEXt",
                b"zTXt",
                b"iTXt",
                b"iCCP",
                b"PLTE",
                b"tRNS",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"eXIf",
                b"pHYs",
                b"gAMA",
            )
        )
        packed = _zeros(rng.choice((10, 1 << 16, 1 << 26)))
        content = rng.choice(
            (
                b"a\0\0" + packed,
                b"\0" * 768,
                b"x" * 5,
                struct.pack(">2I", 2**31 - 1, 0),
                b"a" * 100_000,
            )
        )
        chunks.insert(rng.randrange(1, len(chunks) + 1), [name, content])
    else:
        one[1] = raw.damaged(rng, one[1] or b"x", data)
    made = b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:8] + made


def safetensors_damaged(rng: random.Random, data: bytes) -> bytes:
    """Numbers by name, of which the header says something else."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    kind = rng.randrange(6)
    if kind == 0:
        return raw.damaged(rng, data, data)
    if kind == 1:
        return struct.pack("<Q", rng.choice(raw.INTEGERS)) + data[8:]
    if kind == 2:
        document = json.loads(header)
        entry = document[rng.choice([name for name in document if name != "__metadata__"])]
        entry["dtype"] = rng.choice(
            ("F64", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "U64", "C64", "F4", "X", "")
        )
        entry["data_offsets"] = rng.choice(
            (entry["data_offsets"], [0, 0], [8, 0], [0, 2**63], [0, len(data)])
        )
        made = json.dumps(document).encode()
    else:
        made = texts.json_damaged(rng, header)
    return struct.pack("<Q", len(made)) + made + data[8 + length :]


def damaged_as(rng: random.Random, name: str, data: bytes, other: bytes) -> bytes:
    """Damage that suits the file's name, or any."""
    suffix = name.rpartition(".")[2].lower()
    start = data[:4]
    if rng.random() < 0.25 or not data:
        return raw.damaged(rng, data or b" ", other)
    if start == b"PK\3\4":
        return zip_damaged(rng, data)
    if suffix == "jsonl":
        return texts.jsonl_damaged(rng, data)
    if suffix == "json":
        return texts.json_damaged(rng, data)
    if suffix == "toml":
        return texts.toml_damaged(rng, data)
    if suffix in ("csv", "txt"):
        return texts.list_damaged(rng, data)
    if suffix == "npy":
        return npy_damaged(rng, data)
    if suffix == "safetensors":
        return safetensors_damaged(rng, data)
    if start == b"\x89PNG":
        return png_damaged(rng, data)
    if data[:1] == b"\x80" and data[1:2] <= bytes((pickle.HIGHEST_PROTOCOL,)):
        return pickle_damaged(rng, data)
    return raw.damaged(rng, data, other)
