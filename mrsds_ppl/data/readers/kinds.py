"""Which kind of file a path leads to, by its first bytes and whatever its name, and what is wrong with one of none."""

import stat
from pathlib import Path
from typing import BinaryIO

from mrsds_ppl.errors import DataError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_KINDS = "MATLAB (.mat), numpy (.npz), netCDF (.nc), HDF5 (.h5), NWB (.nwb) or zarr"
_HEAD = 512  # bytes; also the header before the HDF5 part of a MATLAB file
_STARTS = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x93NUMPY": "npy",
    b"CDF\x01": "netCDF 3",
    b"CDF\x02": "netCDF 3",
}
_REFUSED = {
    b"CDF\x05": "is netCDF of the kind CDF-5, which is not read; convert it with nccopy -k nc4",
    b"\x1f\x8b": "is compressed with gzip; unpack it with gunzip",
    b"BZh": "is compressed with bzip2; unpack it with bunzip2",
    b"\xfd7zXZ": "is compressed with xz; unpack it with unxz",
    b"(\xb5/\xfd": "is compressed with zstd; unpack it with unzstd",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"Rar!": "is a rar archive; unpack it",
    b"version https://git-lfs": "is a pointer of Git LFS, not the data; fetch the data with git lfs pull",
    b"<!DOCTYPE": "is a web page, so a download went wrong; download the file again",
    b"<html": "is a web page, so a download went wrong; download the file again",
    b"\x80\x04\x95": "is a Python pickle, which may run code when read; save its arrays with numpy.savez",
    b"\x80\x05\x95": "is a Python pickle, which may run code when read; save its arrays with numpy.savez",
}


def kind_of(path: Path) -> str:
    """``MATLAB``, ``HDF5``, ``zip``, ``npy``, ``netCDF 3`` or ``zarr``.

    Raises:
        DataError: no such file, one that may not be read, an empty one, a folder, or another kind.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return _kind_of_folder(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError("is a device or a pipe, not a file. Give the file itself.")
        with path.open("rb") as file:
            head = file.read(_HEAD)
            is_hdf5 = _has_hdf5(file, status.st_size)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # a ValueError is a NUL in the name
        raise DataError("no such file. Check the path given with --data-path or data.data_path.") from error
    except PermissionError as error:
        raise DataError("may not be read. Ask its owner for permission, or copy it to yourself.") from error
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror}). Copy it to a local disk.") from error
    if not head:
        raise DataError("is empty (0 bytes). What wrote or copied it did not finish; write or copy it again.")
    if is_hdf5:
        return "HDF5"
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[126:128] in (b"IM", b"MI"):
        if head.startswith(b"MATLAB 7.3"):
            raise DataError("is cut short after the header of a MATLAB 7.3 file. Copy it again, whole.")
        return "MATLAB"
    for start, what in _REFUSED.items():
        if head.startswith(start):
            raise DataError(f"{what}.")
    if _is_matlab_4(head):
        return "MATLAB"
    raise DataError(_unknown(head))


def _kind_of_folder(path: Path) -> str:
    inside = sorted(item.name for item in path.iterdir())
    if any(name in _ZARR for name in inside):
        return "zarr"
    files = [name for name in inside if not name.startswith(".")]
    named = f"Give one of its files: {', '.join(files[:5])}." if files else "It is empty."
    raise DataError(f"is a folder, and not one of zarr. {named}")


def _has_hdf5(file: BinaryIO, size: int) -> bool:
    """The signature may begin after 0, 512, 1024, 2048, ... bytes."""
    place = 0
    while place < size:
        file.seek(place)
        if file.read(8) == HDF5_SIGNATURE:
            return True
        place = max(_HEAD, 2 * place)
    return False


def _is_matlab_4(head: bytes) -> bool:
    """A header of five integers, type, rows, columns, whether complex and length of the name, then the name."""
    for order in ("little", "big"):
        kind, _, _, is_complex, length = (int.from_bytes(head[4 * i : 4 * i + 4], order) for i in range(5))
        name = head[20 : 19 + length]
        if kind < 5000 and is_complex in (0, 1) and 1 < length < 64 and name.replace(b"_", b"").isalnum():
            return True
    return False


def _unknown(head: bytes) -> str:
    try:
        # The end may cut a letter of several bytes.
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if text.isprintable() or all(letter.isprintable() or letter in "\r\n\t" for letter in text):
        return f"is a text file; need {_KINDS}. Read it in a loader of your own, data.data_source: loader.py:load."
    return (
        f"is no file of a known kind, or its beginning is damaged; need {_KINDS}. It begins with {head[:8]!r}. "
        "Copy it again, or read it in a loader of your own."
    )
