"""The elements of a MATLAB v5 file, checked before they are read.

The reader of scipy trusts what elements say of themselves, and a damaged one ends the process.

Source: MathWorks, "MAT-File Format", the chapter on level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

_HEADER = 128  # bytes
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMERIC = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_NUMBERS = range(6, 16)

Element = tuple[int, memoryview]


def read_elements(path: Path) -> tuple[BytesIO | None, list[str]]:
    """The file with its variables unpacked, and the names of those of classes that only MATLAB reads.

    Returns:
        None in place of the file where it is of v4, which has no elements.

    Raises:
        ValueError, zlib.error: an element is damaged.
    """
    whole = path.read_bytes()
    if whole[126:128] not in (b"IM", b"MI"):
        return None, []
    order = "<" if whole[126:128] == b"IM" else ">"
    parts, objects, place = [whole[:_HEADER]], [], _HEADER
    while place < len(whole):
        kind, size = _unsigned(whole[place : place + 8], order)
        end = place + 8 + size
        if end > len(whole):
            raise ValueError(f"{end - len(whole):,} bytes are missing at the end")
        element = zlib.decompress(whole[place + 8 : end]) if kind == _COMPRESSED else whole[place:end]
        kind, content = next(_elements(memoryview(element), order), (0, memoryview(b"")))
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where a variable begins")
        object_name = _check_matrix(content, order)
        objects += [] if object_name is None else [object_name]
        parts.append(element[: 8 + len(content)])
        place = end
    return BytesIO(b"".join(parts)), objects


def _unsigned(values: bytes | memoryview, order: str) -> tuple[int, ...]:
    if len(values) % 4:
        raise ValueError("an element is cut short")
    return struct.unpack(f"{order}{len(values) // 4}I", values)


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Type and content of the elements of a matrix, one after the other; a small one stands in its own tag."""
    place = 0
    while place < len(data):
        kind, size = _unsigned(data[place : place + 8], order)
        small = kind >> 16
        begin, size, kind = (place + 4, small, kind & 0xFFFF) if small else (place + 8, size, kind)
        if begin + size > len(data) or small > 4:
            raise ValueError(f"an element of {size:,} bytes where {len(data) - place:,} are left")
        yield kind, data[begin : begin + size]
        place = place + 8 if small else begin + size + -size % 8


def _check_matrix(data: memoryview, order: str) -> str | None:
    """Check one array and what is in it.

    Returns:
        its name, if it is of a class that only MATLAB reads.

    Raises:
        ValueError: something is not as its class asks.
    """
    if not len(data):
        return None
    (kind, flags), *parts = _elements(data, order)
    _demand(kind == _UINT32 and len(flags) == 8, "no class")
    array_class, is_complex = _unsigned(flags, order)[0] & 0xFF, bool(_unsigned(flags, order)[0] & 0x800)
    if array_class == _OPAQUE:
        return bytes(parts[0][1]).decode("latin1")
    _demand(len(parts) >= 2 and parts[0][0] == _INT32 and parts[1][0] == _INT8, "no shape or no name")
    sizes = _unsigned(parts[0][1], order)
    _demand(2 <= len(sizes) <= 32 and max(sizes) < 2**31, f"the shape {sizes}")
    count, rest = math.prod(sizes), parts[2:]
    if array_class in (_STRUCT, _OBJECT):
        names, rest = rest[:2] if array_class == _STRUCT else rest[1:3], rest[2 if array_class == _STRUCT else 3 :]
        _demand([kind for kind, _ in names] == [_INT32, _INT8] and len(names[0][1]) == 4, "no fields")
        [width] = _unsigned(names[0][1], order)
        _demand(0 < width <= 1024, f"names of {width} letters")
        count *= len(names[1][1]) // width
    if array_class in (_CELL, _STRUCT, _OBJECT, _FUNCTION):
        _demand(all(kind == _MATRIX for kind, _ in rest), "a number where an array begins")
        _demand(array_class == _FUNCTION or len(rest) == count, f"{len(rest)} arrays where {count} are announced")
        for _, content in rest:
            _check_matrix(content, order)
        return None
    _demand(array_class in (_CHAR, _SPARSE, *_NUMBERS), f"the class {array_class}")
    wanted = 1 if array_class == _CHAR else (3 if array_class == _SPARSE else 1) + is_complex
    _demand(len(rest) == wanted and all(kind in _NUMERIC for kind, _ in rest), "other values than its class has")
    _demand(array_class != _CHAR or bool(len(rest[0][1])) == bool(count), "text of another length")
    return None


def _demand(right: bool, found: str) -> None:
    if not right:
        raise ValueError(f"an array with {found}")
