"""A Java class file with one method more: the hash code that a class forgot when it defined what is equal."""

from __future__ import annotations

import struct

_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}  # by the tag


def with_hash_code(code: bytes, getter: str) -> bytes:
    """The class with `public int hashCode() { return (int) getter(); }`, where its method `getter` gives a long."""
    (count,) = struct.unpack_from(">H", code, 8)
    constants = _after_constants(code, count)
    (this, _, interfaces) = struct.unpack_from(">HHH", code, constants + 2)
    methods = _after_members(code, constants + 8 + 2 * interfaces)
    (number,) = struct.unpack_from(">H", code, methods)
    texts = b"".join(struct.pack(">BH", 1, len(text)) + text.encode() for text in ("hashCode", "()I", "Code", getter, "()J"))
    name, kind, attribute, called, called_kind, signature, method = range(count, count + 7)
    added = texts + struct.pack(">BHHBHH", 12, called, called_kind, 10, this, signature)  # a name with its type, a method of ours
    body = struct.pack(">BBHBB", 0x2A, 0xB6, method, 0x88, 0xAC)  # aload_0, invokevirtual, l2i, ireturn
    whole = struct.pack(">HHI", 2, 1, len(body)) + body + bytes(4)  # two places on the stack, one local variable, nothing else
    hash_code = struct.pack(">HHHHHI", 1, name, kind, 1, attribute, len(whole)) + whole
    head = code[:8] + struct.pack(">H", count + 7) + code[10:constants] + added
    return head + code[constants:methods] + struct.pack(">H", number + 1) + hash_code + code[methods + 2 :]


def _after_constants(code: bytes, count: int) -> int:
    place, number = 10, 1
    while number < count:
        tag = code[place]
        place += 3 + struct.unpack_from(">H", code, place + 1)[0] if tag == 1 else 1 + _SIZES[tag]
        number += 2 if tag in (5, 6) else 1  # a long or a double counts twice
    return place


def _after_members(code: bytes, place: int) -> int:
    """Where the fields end that begin at `place`."""
    (members,) = struct.unpack_from(">H", code, place)
    place += 2
    for _ in range(members):
        (attributes,) = struct.unpack_from(">H", code, place + 6)
        place += 8
        for _ in range(attributes):
            place += 6 + struct.unpack_from(">I", code, place + 2)[0]
    return place
