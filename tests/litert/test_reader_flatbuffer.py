"""Files built word by word. So the numbers in the messages are known."""

import numpy as np
import pytest

from keras_qat.litert.format import flatbuffer
from keras_qat.litert.format.flatbuffer import Damage, decode
from keras_qat.litert.format.schema_tables import Field

TABLES = {
    "Root": (Field("leaves", "Leaf", None, True, False),),
    "Leaf": (Field("values", "i32", None, True, False),),
    "Text": (Field("text", "string", None, False, False),),
    "Pair": (
        Field("kind_type", "u8", 0, False, False),
        Field("kind", "Kind", None, False, True),
    ),
    "Number": (Field("flag", "bool", True, False, False), Field("wide", "i64", 7, False, False)),
}
UNIONS = {"Kind": ("NONE", "Leaf")}


def file_of(*words):
    """Makes a file with a vtable at byte 8. Its one field is after the table's first word."""
    head = [16, 0, 6 | 8 << 16, 4]
    return np.array([*head, *words], "<u4").tobytes()


def leaves(count, shared):
    """Makes `count` tables with vectors of 500 words in one region of 1000 words."""
    size = 7 + count + 2 * count
    words = [8, 4, count]
    words += [4 * (count + i) for i in range(count)]
    for i in range(count):
        at = 7 + count + 2 * i
        words += [4 * at - 8, 4 * (size - at - 1 + (0 if shared else i))]
    return file_of(*words, *[500] * 1000)


def root(content, name="Root"):
    return decode(content, TABLES, UNIONS, name)


def test_decode_reads_shared_tables_once():
    tables = root(leaves(200, shared=True))["leaves"]
    assert len(tables) == 200
    assert all(table["values"].tolist() == [500] * 500 for table in tables)


def test_decode_refuses_overlapping_objects_early():
    """200 vectors of 2 KB in a file of 6 KB."""
    with pytest.raises(Damage, match="the objects up to here overlap"):
        root(leaves(200, shared=False))


def test_decode_limits_the_number_of_tables(monkeypatch):
    monkeypatch.setattr(flatbuffer, "MOST_TABLES", 20)
    assert root(leaves(20, shared=True))
    with pytest.raises(Damage, match=r"Root\.leaves\[20\]: there are more than 20 tables"):
        root(leaves(21, shared=True))


LEAF = {
    "negative vtable": (file_of(2**31 - 1, 4, 0), "the vtable of the table at byte 16 lies at -2"),
    "vtable beyond the end": (file_of(-400 % 2**32, 4, 0), "bytes 416 to 420 are needed"),
    "odd vtable": (file_of(7, 4, 0), "byte 9 is not aligned to 2"),
    "short vtable": (file_of(2, 4, 0), "the vtable at byte 14 cannot be 0 bytes long"),
    "vector beyond the end": (file_of(8, 2**20, 0), "the offset 1048576 at byte 20 leads out"),
    "no offset": (file_of(8, 0, 0), "the offset 0 at byte 20 leads out"),
    "negative offset": (file_of(8, 2**32 - 8, 0), "the offset 4294967288 at byte 20 leads out"),
    "long vector": (file_of(8, 4, 3, 1, 2), "bytes 28 to 40 are needed, but the file ends at 36"),
    "longest vector": (file_of(8, 4, 2**32 - 1), "bytes 28 to 17179869208 are needed"),
    "unaligned": (file_of(8, 5, 0, 0), "byte 25 is not aligned to 4"),
    "empty": (b"", "bytes 0 to 4 are needed, but the file ends at 0"),
    "root beyond the end": (b"\xff\xff\xff\x7f", "the offset 2147483647 at byte 0 leads out"),
}


@pytest.mark.parametrize("content, message", LEAF.values(), ids=LEAF)
def test_decode_refuses_invalid_offsets(content, message):
    with pytest.raises(Damage, match=message):
        root(content, "Leaf")


def test_decode_needs_the_last_byte():
    assert root(file_of(8, 4, 2, 1, 2), "Leaf")["values"].tolist() == [1, 2]
    with pytest.raises(Damage, match="but the file ends at 35"):
        root(file_of(8, 4, 2, 1, 2)[:-1], "Leaf")


def test_decode_needs_a_zero_byte_after_a_string():
    text = file_of(8, 4, 3, int.from_bytes(b"abc\0", "little"))
    assert root(text, "Text")["text"] == "abc"
    with pytest.raises(Damage, match="does not end with a zero byte"):
        root(text[:-1] + b"d", "Text")
    with pytest.raises(Damage, match="bytes 31 to 32 are needed"):
        root(text[:-1], "Text")
    assert root(text.replace(b"b", b"\xff"), "Text")["text"] == "a\N{REPLACEMENT CHARACTER}c"


def pair(number):
    """Makes a union of this type. Its value is the table at byte 28, which shares the vtable."""
    vtable = [8 | 12 << 16, 4 | 8 << 16]
    words = [16, 0, *vtable, 8, number, 4, 20, 0]
    return np.array(words, "<u4").tobytes()


def test_decode_reads_known_and_unknown_unions():
    assert root(pair(0), "Pair")["kind"] is None
    with pytest.raises(Damage, match=r"Pair\.kind\.values"):
        root(pair(1), "Pair")
    unknown = root(pair(9), "Pair")["kind"]
    assert (unknown.table, dict(unknown)) == ("Kind 9", {})
    broken = pair(9)[:28] + b"\xff\xff\xff\x7f" + pair(9)[32:]
    with pytest.raises(Damage, match="Pair.kind: the vtable"):
        root(broken, "Pair")


def test_decode_gives_absent_fields_their_defaults():
    empty = np.array([12, 0, 4 | 4 << 16, 4], "<u4").tobytes()
    assert dict(root(empty, "Number")) == {"flag": True, "wide": 7}
