"""Checkpoint files: all forms are read, and of hostile ones nothing runs and nothing large is made."""

import builtins
import contextlib
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from asymseg.errors import CheckpointError
from asymseg.model.foreign.reading import read_checkpoint

TENSORS = {"a.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "a.bias": torch.tensor([1.5, -2.0])}
MIB = 2**20


def assert_same(tensors, expected=None):
    expected = TENSORS if expected is None else expected
    assert list(tensors) == list(expected)
    for key, tensor in expected.items():
        assert torch.equal(tensors[key], tensor)
        assert tensors[key].dtype == tensor.dtype
        assert not tensors[key].requires_grad


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("held", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_torch_saves(tmp_path, zipped, held, prefix):
    state = OrderedDict((f"{prefix}{key}", tensor) for key, tensor in TENSORS.items())
    state._metadata = OrderedDict({"": {"version": 1}})  # as module.state_dict() has it
    content = state if held is None else {"meta": {"x": [1, (2.5, None)]}, held: state, "optimizer": {"step": 3}}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    tensors, beside = read_checkpoint(tmp_path / "file")
    assert_same(tensors)
    assert beside == ({} if held is None else {"meta": {"x": [1, (2.5, None)]}, "optimizer": {"step": 3}})


def test_parameters_and_shared_and_sliced_tensors(tmp_path):
    whole = torch.arange(10.0)
    content = {
        "parameter": nn.Parameter(torch.ones(2)),
        "one": whole,
        "same": whole,
        "part": whole[3:7],
        "turned": whole.reshape(2, 5).T,
        "counter": torch.tensor(7),
        "half": torch.ones(3, dtype=torch.float16),
        "bfloat": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.ones(0, 3),
    }
    for zipped in (True, False):
        torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
        assert_same(read_checkpoint(tmp_path / "file")[0], {key: value.detach() for key, value in content.items()})


@pytest.mark.parametrize("number", [np.float64(0.799), np.float32(0.5), np.int64(-3), np.bool_(True)])
@pytest.mark.parametrize("older", [False, True])
def test_numpy_scalars(tmp_path, number, older):
    """The authors' files have one, in the older form and under the name that NumPy had then."""
    path = tmp_path / "file.pth"
    content = {"state_dict": TENSORS, "runner_state": {"performance": number}}
    torch.save(content, path, _use_new_zipfile_serialization=not older)
    if older:
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    tensors, beside = read_checkpoint(path)
    assert_same(tensors)
    value = beside["runner_state"]["performance"]
    assert value == number
    assert type(value) in (int, float, bool)


def rename_in_zip(path, old, new):
    """The same archive with other words in its pickle, uncompressed as torch writes it."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    write_zip(path, {name: content.replace(old, new) for name, content in records.items()})


def write_zip(path, records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("form", ["arrays", "pairs", "ordered"])
def test_what_paddle_saves(tmp_path, protocol, form):
    class Saved:
        """PaddlePaddle's tensors reduce themselves to `tuple((name, array))`."""

        def __init__(self, name, array):
            self.parts = name, array

        def __reduce__(self):
            return tuple, (self.parts,)

    arrays = {key: np.ascontiguousarray(tensor.numpy()) for key, tensor in TENSORS.items()}
    if form == "pairs":
        content = {key: Saved(f"conv_{key}", array) for key, array in arrays.items()}
    else:
        content = OrderedDict(arrays) if form == "ordered" else arrays
    if form != "ordered":
        content = content | {"StructuredToParameterName@@": {key: "conv" for key in arrays}}
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content, protocol=protocol))
    tensors, beside = read_checkpoint(tmp_path / "x.pdparams")
    assert_same(tensors)
    assert set(beside) <= {"StructuredToParameterName@@"}


def test_arrays_by_column_and_of_other_byte_order(tmp_path):
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    content = {"column": np.asfortranarray(array), "swapped": array.astype(">f8"), "whole": np.arange(3)}
    (tmp_path / "x").write_bytes(pickle.dumps(content, protocol=4))
    tensors, _ = read_checkpoint(tmp_path / "x")
    assert torch.equal(tensors["column"], torch.from_numpy(array))
    assert torch.equal(tensors["swapped"], torch.from_numpy(array))
    assert torch.equal(tensors["whole"], torch.arange(3))


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "x.pth")  # the content counts, not the name
    tensors, beside = read_checkpoint(tmp_path / "x.pth")
    assert_same(dict(sorted(tensors.items(), reverse=True)))
    assert beside == {}


# What a hostile pickle may ask for. Each would leave a file behind if it ran.


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(mark):
    command = f"touch {mark}"
    return {
        "posix.system": Calls(os.system, command),
        "builtins.eval": Calls(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "builtins.exec": Calls(builtins.exec, f"open({str(mark)!r}, 'w')"),
        "builtins.getattr": Calls(builtins.getattr, Path(mark), "touch"),
        "builtins.setattr": Calls(builtins.setattr, OrderedDict, "a", str(mark)),
        "builtins.bytearray": Calls(bytearray, 10**11),
        "torch.serialization.load": Calls(torch.load, str(mark)),
        "numpy.load": Calls(np.load, str(mark)),
        "torch.nn.modules.conv.Conv2d": nn.Conv2d(1, 1, 1),
    }


NAMES = sorted(hostile("x"))


def wrapped(content, depth):
    """The same within containers, and as an argument of something allowed."""
    return content if not depth else {"meta": [({"deep": Calls(OrderedDict, [("key", content)])},)], **TENSORS}


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 2", "pickle 4"])
@pytest.mark.parametrize("name", NAMES)
def test_what_asks_for_more_is_refused_by_name(tmp_path, name, form, depth):
    mark = tmp_path / "ran"
    content = wrapped(hostile(mark)[name], depth)
    path = tmp_path / "file"
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = refused(path)
    assert not mark.exists()
    names = {name, name.replace("builtins", "__builtin__")}  # protocol 2 has Python 2's
    assert any(f"asks for {known!r}, which weights do not need; nothing of it was run" in message for known in names)


def test_a_name_made_of_texts_on_the_stack(tmp_path):
    """STACK_GLOBAL takes its words from anywhere, here from the memo."""
    program = b"\x80\x04" + b"\x8c\x06system\x94" + b"0" + b"\x8c\x05posix" + b"h\x00" + b"\x93" + b"\x8c\x02id\x85R."
    (tmp_path / "x").write_bytes(program)
    assert "asks for 'posix.system'" in refused(tmp_path / "x")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02(iposix\nsystem\n.",  # INST
        b"\x80\x02cposix\nsystem\n(S'id'\ntR.",
        b"\x80\x02(cposix\nsystem\nS'id'\no.",  # OBJ
    ],
)
def test_old_instructions(tmp_path, program):
    (tmp_path / "x").write_bytes(program)
    assert "asks for 'posix.system'" in refused(tmp_path / "x")


BIG = struct.pack("<Q", 2**40)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "a memo of 2147483647 entries"),  # CPython would make room for them all
        (b"\x80\x02}p2147483647\n.", "a memo of 2147483647 entries"),
        (b"\x80\x04\x8e" + BIG + b"short.", "expected 1099511627776 bytes"),
        (b"\x80\x05\x96" + BIG + b"short.", "expected 1099511627776 bytes"),
        (b"\x80\x04\x8d" + BIG + b"short.", "expected 1099511627776 bytes"),
        (b"\x80\x04\x95" + BIG + b"}.", "damaged or not a checkpoint"),
        (b"\x80\x02" + b"(" * 10 + b".", "damaged"),
        (b"\x80\x02}" + b"N" + b"\x85" * 200_000 + b"Ns.", "tuples within tuples"),
        (b"\x80\x02}" + b"N" + b"\x85q\x00h\x00" * 2000 + b"Ns.", "tuples within tuples"),
        (
            b"\x80\x02c__builtin__\ntuple\nq\x010Nq\x000" + b"h\x01h\x00N\x86\x85Rq\x000" * 2000 + b"}h\x00Ns.",
            "tuples within tuples",  # though a call stands between every two
        ),
        (b"\x80\x02Lx\n.", "damaged"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02NR.", "damaged"),
        (b"\x80\x09}.", "damaged"),
        (b"\x80\x02N.", "holds a NoneType, not weights by name"),
        (b"\x80\x02}.", "holds no weights"),
        (b"\x80\x02}K\x01K\x02s.", "names a tensor by a int, not a text"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x02s.", "'a' is a int, not a tensor"),
        (b"\x80\x02\x82\x01.", "damaged"),  # an extension's number
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "damaged"),  # something from outside
        (b"\x80\x05\x97.", "damaged"),  # a buffer from outside
    ],
)
def test_small_pickles_that_ask_for_much(tmp_path, program, message):
    (tmp_path / "x").write_bytes(program)
    assert message in refused(tmp_path / "x")


def array_program(shape, code, content, kind="f4"):
    """A pickle of one array whose parts do not fit."""

    class Odd:
        def __reduce__(self):
            rebuild = np.zeros(1).__reduce__()[0]
            return rebuild, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(kind), False, content)

    return pickle.dumps({"a": Odd()}, protocol=code)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("shape", "kind", "content", "message"),
    [
        ((10**12,), "f4", b"1234", "an array of shape (1000000000000,) with 4 bytes"),
        ((2**62, 4), "f4", b"1234", "with 4 bytes"),
        ((-1,), "f4", b"1234", "impossible shape"),
        ((1,), "V1000000000", b"", "not of numbers"),
        ((1,), "O", b"12345678", "not of numbers"),
        ((1,), "U1", b"1234", "not of numbers"),
        ((1.0,), "f4", b"1234", "impossible shape"),
        ((1,), "f4", [1], "unknown form"),
    ],
)
def test_arrays_that_do_not_add_up(tmp_path, protocol, shape, kind, content, message):
    (tmp_path / "x").write_bytes(array_program(shape, protocol, content, kind))
    assert message in refused(tmp_path / "x")


def test_a_compressed_archive(tmp_path):
    """Ten MiB of zeros in ten KiB: torch never compresses, so what is compressed is a bomb."""
    path = tmp_path / "x"
    torch.save({"a": torch.zeros(10 * MIB // 4)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    write_zip(path, records, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MIB
    assert "is compressed, as torch never writes it" in refused(path)


def with_claim(path, claim):
    """Say another length of the one storage than it has."""
    torch.save({"a": torch.zeros(1000)}, path)
    said = pickle.dumps(1000, protocol=2)[2:-1]  # as BININT2
    rename_in_zip(path, said, b"J" + struct.pack("<i", claim))


@pytest.mark.parametrize("claim", [1001, 2**30])
def test_a_storage_longer_than_its_record(tmp_path, claim):
    """torch would read past the record's end."""
    with_claim(tmp_path / "x", claim)
    assert "record 0 is said to have" in refused(tmp_path / "x")


def test_a_legacy_file_that_says_to_be_large(tmp_path):
    path = tmp_path / "x"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    said, large = pickle.dumps(1000, protocol=2)[2:-1], b"J" + struct.pack("<i", 2**30)
    path.write_bytes(path.read_bytes().replace(said, large))
    assert "its tensors are said to have 4294967296 bytes" in refused(path)


def test_a_legacy_file_with_an_archive_behind_it(tmp_path):
    """torch takes it for what it begins with, so that is what must be checked."""
    path, archive = tmp_path / "x", tmp_path / "y"
    torch.save({"a": torch.zeros(1000), "meta": Calls(bytearray, 10)}, path, _use_new_zipfile_serialization=False)
    torch.save(TENSORS, archive)
    path.write_bytes(path.read_bytes() + archive.read_bytes())
    assert zipfile.is_zipfile(path)
    assert "asks for '__builtin__.bytearray'" in refused(path)


def test_the_last_pickle_of_a_legacy_file(tmp_path):
    """Behind the weights stands one more, with the order of their numbers."""
    path = tmp_path / "x"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    start, order = path.read_bytes().rsplit(b"\x80\x02]", 1)
    assert order.endswith(torch.zeros(2).numpy().tobytes())
    path.write_bytes(start + pickle.dumps(Calls(bytearray, 10), protocol=2) + order)
    assert "asks for '__builtin__.bytearray'" in refused(path)


def test_one_number_that_says_to_be_many(tmp_path):
    path = tmp_path / "x"
    torch.save({"a": torch.zeros(1).expand(10**9)}, path)
    assert path.stat().st_size < 10_000
    assert "'a' has more numbers than the file holds of it" in refused(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, 2).to_sparse(), "asks for 'torch._utils._rebuild_sparse_tensor'"),
        (torch.zeros(2, device="meta"), "asks for 'torch._utils._rebuild_meta_tensor_no_storage'"),
        ([torch.zeros(1)], "'a' is a list, not a tensor"),
        ("text", "'a' is a str, not a tensor"),
        (None, "'a' is a NoneType, not a tensor"),
    ],
)
def test_entries_that_are_no_plain_tensors(tmp_path, value, message):
    torch.save({"a": value}, tmp_path / "x")
    assert message in refused(tmp_path / "x")


@pytest.mark.parametrize("key", ["two\nlines", "\x1b[31mred", "long" * 100])
def test_names_that_cannot_be_shown(tmp_path, key):
    torch.save({key: torch.zeros(1)}, tmp_path / "x")
    assert "which is no name of a tensor" in refused(tmp_path / "x")


def test_an_attribute_in_the_place_of_a_method(tmp_path):
    state = OrderedDict(TENSORS)
    state.itemz = "not a method"
    torch.save({"state_dict": state}, tmp_path / "x")
    rename_in_zip(tmp_path / "x", b"itemz", b"items")
    assert_same(read_checkpoint(tmp_path / "x")[0])


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "safetensors"])
def test_cut_files(tmp_path, form):
    path = tmp_path / "x"
    if form == "pickle":
        path.write_bytes(pickle.dumps({key: tensor.numpy() for key, tensor in TENSORS.items()}, protocol=4))
    elif form == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    for length in [*range(0, len(content) - 1, max(1, len(content) // 40)), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(path)


def test_flipped_bytes_never_surprise(tmp_path):
    """Any one byte of the pickle changed: either it is still read, or it is refused."""
    path = tmp_path / "x"
    good = pickle.dumps({key: tensor.numpy() for key, tensor in TENSORS.items()}, protocol=4)
    generator = np.random.default_rng(0)
    for place in generator.permutation(len(good))[:150]:
        content = bytearray(good)
        content[place] = generator.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):  # and nothing else
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "neither torch's nor PaddlePaddle's nor a safetensors file (it begins with"),
        (b"", "it begins with b''"),
        (b"version https://git-lfs", "it begins with b'version http'"),
    ],
)
def test_what_is_no_checkpoint_at_all(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    assert message in refused(tmp_path / "x.pth")


def test_an_archive_of_something_else(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert "not a checkpoint" in refused(tmp_path / "x.npz")
    write_zip(tmp_path / "y", {"a/data.pkl": b"\x80\x02}.", "b/data.pkl": b"\x80\x02}."})
    assert "not a checkpoint" in refused(tmp_path / "y")
    write_zip(tmp_path / "z", {"net/data.pkl": b"\x80\x02c__torch__.torch.nn\nReLU\n)\x81."})  # as torch.jit saves
    assert "asks for '__torch__" in refused(tmp_path / "z")


def test_what_is_not_there(tmp_path):
    assert "no such file" in refused(tmp_path / "x")
    assert "no such file" in refused(tmp_path)
