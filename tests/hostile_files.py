"""Checkpoint files of strangers: malicious, damaged, or of another kind, built by hand so that they may lie."""

import io
import json
import os
import pickle
import struct
import tarfile
import zlib

import numpy as np
import torch

OLD = {"_use_new_zipfile_serialization": False}


class Evil:
    """A pickle that makes a file when it is executed."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def archive(records, packed=(), same_place=False, wide=False):
    """A zip file written by hand, so that it may lie; ``wide`` puts the sizes in fields of 64 bits."""
    body, directory = b"", b""
    for name, content in records:
        start = 0 if same_place else len(body)
        method, size = (8, dict(packed)[name]) if name in dict(packed) else (0, len(content))
        version = struct.pack("<5HI", 20, 0, method, 0, 0, zlib.crc32(content))
        label, full = name.encode(), 0xFFFFFFFF
        body += b"PK\3\4" + version + struct.pack("<2I2H", len(content), size, len(label), 0)
        body += label + content
        extra = struct.pack("<2H3Q", 1, 24, size, len(content), start) if wide else b""
        sizes = (full, full) if wide else (len(content), size)
        directory += b"PK\1\2" + struct.pack("<H", 45) + version + struct.pack("<2I", *sizes)
        directory += struct.pack("<5HI", len(label), len(extra), 0, 0, 0, 0)
        directory += struct.pack("<I", full if wide else start) + label + extra
    count = len(records)
    end = struct.pack("<4H2IH", 0, 0, count, count, len(directory), len(body), 0)
    if wide:
        long = struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, count, count, len(directory), len(body))
        where = struct.pack("<IQI", 0, len(body) + len(directory), 1)
        short = struct.pack("<4H2IH", 0, 0, count, count, full, full, 0)
        end = b"PK\6\6" + long + b"PK\6\7" + where + b"PK\5\6" + short
        return body + directory + end
    return body + directory + b"PK\5\6" + end


def checkpoint(program, storages=(("0", bytes(8)),)):
    """A zip of torch.save around a pickle."""
    records = [("a/data.pkl", program), ("a/version", b"3\n")]
    return archive(records + [(f"a/data/{key}", content) for key, content in storages])


def zeros(size):
    """``size`` zeros as a deflate stream, made at once: a block of zeros repeats itself."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(bytes(1 << 20))
    packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 20) + packer.flush()


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(value):
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def tensor(shape, strides, count=2, key="0", offset=0, view=b""):
    """Instructions that make one tensor of a storage; the format before 1.6 also tells a view, or ``N``one."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    storage += number(count) + view + b"tQ"
    sizes, steps = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides))
    hooks = b"ccollections\nOrderedDict\n)R"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + storage + number(offset) + sizes + steps + b"\x89" + hooks + b"tR"


def mapping(value, name=None):
    """A pickle of a dictionary with one entry."""
    return b"\x80\x02}" + (text("w") if name is None else name) + value + b"s."


def legacy(program, storages=((b"0", bytes(8)),), claimed=2):
    """A file of torch.save before 1.6 around a pickle."""
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    head = buffer.getvalue()
    keys = pickle.dumps([key.decode() for key, _ in storages], protocol=2)
    empty_mapping, no_keys = pickle.dumps({}, protocol=2), pickle.dumps([], protocol=2)
    assert head.endswith(empty_mapping + no_keys)
    head = head[: -len(empty_mapping + no_keys)]
    body = b"".join(struct.pack("<q", claimed) + content for _, content in storages)
    return head + program + keys + body


def header(entries, size=8):
    """A safetensors file with such a header."""
    data = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return struct.pack("<Q", len(data)) + data + bytes(size)


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def laughs(depth, seed=b")"):
    """A tuple of two tuples of two tuples..."""
    return seed + b"q\x00h\x00\x86" * depth


def hostile(mark):
    """Contents of files by name, with words that their refusal says."""
    good = tensor([2], [1])
    whole, old = saved({"w": torch.ones(500)}), saved({"w": torch.ones(500)}, **OLD)
    evil = {"w": torch.ones(2), "x": Evil(mark)}
    here = f"{os.system.__module__}.system"
    short = checkpoint(mapping(good))
    files = {
        "evil.pt": (saved(evil), here),
        "evil.t7": (saved(evil, **OLD), here),
        "evil_bare.th": (pickle.dumps(Evil(mark), protocol=2), "bare pickle"),
        "evil_bare_4.th": (pickle.dumps(Evil(mark), protocol=4), "bare pickle"),
        "bomb_pickle.pt": (
            archive([("a/data.pkl", zeros(4 << 30))], {"a/data.pkl": 0xFFFF0000}.items()),
            "data.pkl is compressed",
        ),
        "bomb_storage.pt": (
            archive(
                [
                    ("a/data.pkl", mapping(tensor([1 << 30], [1], 1 << 30))),
                    ("a/data/0", zeros(4 << 30)),
                ],
                {"a/data/0": 0xFFFF0000}.items(),
            ),
            "data/0 is compressed",
        ),
        "overlap.pt": (
            archive([("a/data.pkl", mapping(good)), ("b/data.pk2", bytes(8))], same_place=True),
            "overlaps",
        ),
        "same_name.pt": (
            archive([("a/data.pkl", mapping(good)), ("a/DATA.pkl", b"."), ("a/data/0", bytes(8))]),
            "share a name",
        ),
        "gap.pt": (whole[:-98] + b"more" + whole[-98:], "contradicts itself"),
        "gap_short.pt": (short[:-22] + b"more" + short[-22:], "cut short or grew"),
        "behind.pt": (whole + b"more", "cut short or grew"),
        "shape.pt": (checkpoint(mapping(tensor([1 << 40], [1]))), "claimed over a storage"),
        "stride.pt": (checkpoint(mapping(tensor([1 << 40], [0]))), "claimed over a storage"),
        "far.pt": (checkpoint(mapping(tensor([1], [1], offset=2))), "claimed over a storage"),
        "many_views.pt": (
            checkpoint(
                b"\x80\x02}"
                + b"".join(text(str(i)) + tensor([1 << 18], [0]) + b"s" for i in range(300))
                + b"."
            ),
            "claims tensors of 314572800 bytes over 8",
        ),
        "negative.pt": (checkpoint(mapping(tensor([-1], [1]))), "impossible shape"),
        "dimensions.pt": (checkpoint(mapping(tensor([1] * 65, [1] * 65))), "impossible shape"),
        "record.pt": (checkpoint(mapping(tensor([4], [1], 4))), "has 8 bytes where 16 bytes"),
        "no_record.pt": (checkpoint(mapping(tensor([2], [1], key="9"))), "storage 9 is missing"),
        "shape.t7": (legacy(mapping(tensor([1 << 40], [1], view=b"N"))), "claimed over a storage"),
        "beyond.t7": (legacy(mapping(tensor([9], [1], view=b"N"))), "claimed over a storage"),
        "storage.t7": (legacy(mapping(tensor([2], [1], 1 << 33, view=b"N"))), "ends in the middle"),
        "unread.t7": (
            legacy(mapping(tensor([1 << 33], [1], 1 << 33, view=b"N")), ()),
            "no bytes in the file",
        ),
        "sizes.t7": (legacy(mapping(tensor([2], [1], view=b"N")), claimed=1 << 33), "two sizes"),
        "doubling.pt": (
            checkpoint(
                mapping(
                    b"c_codecs\nencode\n"
                    + text("ab")
                    + text("latin1")
                    + b"\x86R"
                    + (b"q\x00c_codecs\nencode\nh\x00" + text("hex") + b"\x86R") * 45
                )
            ),
            "bytes of something",
        ),
        "bytearray.pt": (
            checkpoint(mapping(b"cbuiltins\nbytearray\n" + number(10**10) + b"\x85R")),
            "bytes of something",
        ),
        "copies.pt": (
            checkpoint(
                b"\x80\x02(]q\x01("
                + b"K\x01" * 200_000
                + b"e"
                + b"cbuiltins\nset\nh\x01\x85R" * 20_000
                + b"t."
            ),
            "over 512 MiB",
        ),
        "tensor.pt": (
            checkpoint(mapping(b"ctorch\nTensor\n" + number(1 << 33) + b"\x85R")),
            "calls torch.Tensor",
        ),
        "laughs.pt": (checkpoint(mapping(good, laughs(60))), "over 1000 parts"),
        "deep.pt": (checkpoint(mapping(good, b")" + b"\x85" * 300_000)), "over 1000 parts"),
        "sets.pt": (checkpoint(b"\x80\x02(" + b"\x8f" * 9_000_000 + b"t."), "over 512 MiB"),
        "colliding.pt": (
            checkpoint(
                b"\x80\x02}("
                + b"".join(number(i * (2**61 - 1) << 61) + b"N" for i in range(1, 50_000))
                + b"u."
            ),
            "more than 64 bits",
        ),
        "long_text.pt": (checkpoint(mapping(b"X\xff\xff\xff\xff")), "over 512 MiB"),
        "stack.pt": (checkpoint(b"\x80\x02ttt."), "damaged"),
        "set_.pt": (
            checkpoint(mapping(good + b"(" + number(1 << 33) + b"tb")),
            "changes a tensor after",
        ),
        "shadow.pt": (
            checkpoint(b"\x80\x02ccollections\nOrderedDict\n)R}" + text("items") + b"K\x01sb."),
            "no tensors by name",
        ),
        "escapes.pt": (checkpoint(b"\x80\x02cpkg\x1b[31m\nName\n)R."), "holds pkg?[31m.Name"),
        "huge.safetensors": (
            header({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}),
            "cannot be read",
        ),
        "product.safetensors": (
            header({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}),
            "cannot be read",
        ),
        "outside.safetensors": (
            header({"w": {"dtype": "F32", "shape": [2**20], "data_offsets": [0, 2**22]}}),
            "cannot be read",
        ),
        "overlap.safetensors": (
            header({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in ("a", "b")}),
            "cannot be read",
        ),
        "long.safetensors": (struct.pack("<Q", 1 << 62) + b"{}", "header claims"),
        "beyond.safetensors": (struct.pack("<Q", 3) + b"{}", "header claims"),
        "nested.safetensors": (
            header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
            "cannot be read",
        ),
        "empty.ckpt": (b"", "it is empty"),
        "log.bin": (b"epoch 1\nloss 2\n", "a text file"),
        "page.pth": (b"<!DOCTYPE html><html>", "a web page"),
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        "picture.pt": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG picture"),
        "packed.pt": (zlib.compress(b"a") and b"\x1f\x8b\x08" + bytes(50), "a gzip file"),
        "noise.pt": (bytes(range(128, 256)), "no format that torch.save writes"),
        "empty.pt": (archive([]), "zip of other things"),
    }
    for part in (1, 3, 30, 200, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        files[f"cut_{part}.pt"] = (whole[:part], "cannot be read")
    for part in (1, 14, 40, len(old) // 8, len(old) // 2, len(old) - 1):
        files[f"cut_{part}.t7"] = (old[:part], "cannot be read")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(9))
    files["arrays.pt"] = (buffer.getvalue(), "an .npz of NumPy arrays")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("storages"))
    files["old.tar.pt"] = (buffer.getvalue(), "a tar archive")
    records = [("a/data.pkl", b"."), ("a/constants.pkl", b"."), ("a/code/x.py", b"")]
    files["script.pt"] = (archive(records), "TorchScript")
    return files
