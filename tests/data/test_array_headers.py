"""Headers of arrays that are damaged, or say more than their file holds, are refused before anything is made for them."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_worlds import small
from layouts import dexml

from xmc.data.images.vixml import import_vixml_images
from xmc.data.readers import open_source
from xmc.data.validate import validate
from xmc.errors import DataError
from xmc.search.predicates import LONGEST, parse_predicate


def header_of(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode("latin-1")


HEADERS = {
    "open parenthesis": header_of("{'descr': '<i8', 'fortran_order': False, 'shape': (3,"),
    "open string": header_of("{'descr': '<i8', 'fortran_order': False, 'shape': '''(3,)}"),
    "nested": header_of("(" * 5_000),
    "signs": header_of("-" * 9_000 + "1"),
    "rows": header_of("{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
    "less than no rows": header_of("{'descr': '<i8', 'fortran_order': False, 'shape': (-3,)}"),
    "a type that is none": header_of("{'descr': '<q999', 'fortran_order': False, 'shape': (3,)}"),
    "a type within itself": header_of("{'descr': [('a', [('b', '<i8')])] * 2, 'fortran_order': 0, 'shape': (3,)}"),
    "no mapping": header_of("[1, 2]"),
    "digits": header_of("9" * 9_000),
    "version": header_of("{}", b"\x09\x00"),
    "nothing": b"",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_headers_of_npy_files(tmp_path: Path, header: bytes) -> None:
    dataset = small()
    dataset.save(tmp_path / "data")
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "trn_embs_imgs.npy", np.ones((4, 4), np.float32))
    (source / "train_imgs_map.npy").write_bytes(header + b"\0" * 64)
    for objects in (False, True):
        with pytest.raises(DataError, match=r"train_imgs_map\.npy"):
            import_vixml_images(type(dataset).load(tmp_path / "data"), source, read_object_arrays=objects)


def test_arrays_of_objects_that_say_more_than_there_are(tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "trn_embs_imgs.npy", np.ones((4, 4), np.float32))
    file = source / "train_imgs_map.npy"
    file.write_bytes(header_of("{'descr': '|O', 'fortran_order': False, 'shape': (99999999999,)}") + b"\x80\x02]q\x00.")
    with pytest.raises(DataError, match=r"says \[99999999999\] objects, which \d+ bytes cannot hold"):
        import_vixml_images(type(small()).load(tmp_path / "data"), source, read_object_arrays=True)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="it is a pipe, and not a file"):
        import_vixml_images(type(small()).load(tmp_path / "data"), source, read_object_arrays=True)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_headers_within_a_zip_file(tmp_path: Path, header: bytes) -> None:
    dexml(tmp_path)
    file = tmp_path / "Y.trn.npz"
    with zipfile.ZipFile(file) as members:
        contents = {name: members.read(name) for name in members.namelist()}
    contents["indices.npy"] = header + b"\0" * 64
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        for name, content in contents.items():
            members.writestr(name, content)
    with pytest.raises(DataError, match=r"Y\.trn\.npz cannot be read as a scipy CSR matrix without pickles: "):
        list(validate(open_source(tmp_path, "dexml")))


def test_members_that_say_more_bytes_than_they_unpack_to(tmp_path: Path) -> None:
    dexml(tmp_path)
    assert list(validate(open_source(tmp_path, "dexml"))) == []
    file = tmp_path / "Y.trn.npz"
    written = io.BytesIO()
    with zipfile.ZipFile(file) as members, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in members.namelist():
            packed.writestr(name, members.read(name))
    content = bytearray(written.getvalue())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 0xFFFFFFF0)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"\.npy says that it is 4,294,967,280 bytes unpacked"):
        list(validate(open_source(tmp_path, "dexml")))


def test_conditions_are_of_bounded_length() -> None:
    from xmc.errors import InputError

    many = ", ".join(str(number) for number in range(1_000))
    assert str(parse_predicate(f"price in [{many}]")).count("price") == 1_000
    with pytest.raises(InputError, match=rf"has {LONGEST + 12:,} characters, and {LONGEST:,} are the most"):
        parse_predicate("market == '" + "x" * LONGEST + "'")
    for text in ("(" * 5_000, "not " * 20_000 + "True", "-" * 50_000 + "1 == price", "price == '\ud800'", "a == \0"):
        with pytest.raises(InputError, match="condition"):
            parse_predicate(text)
