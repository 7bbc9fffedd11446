"""Files that must be refused before anything is loaded: hostile, foreign, damaged, or no checkpoint at all."""

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from random import Random

import pytest
import torch

from escn_calc.checkpoints.archive import ALLOWED_GLOBALS, Global, inspect_archive, scan_pickle
from escn_calc.checkpoints.fair import SAFE_GLOBALS, read_fair
from escn_calc.errors import CheckpointError, InputError


def refuse(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        read_fair(path)
    assert str(path) in str(caught.value)


class Hostile:
    """Unpickling this would create a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def rewrite(source, target, change, compression=zipfile.ZIP_STORED):
    """Copy a zip archive; ``change`` maps (name, bytes) to (name, bytes), or to None to leave a member out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in old.infolist():
            member = change(info.filename, old.read(info))
            if member is not None:
                new.writestr(*member)
    return target


@pytest.fixture
def sound(parity):
    return parity / "l2m1" / "checkpoint.pt"


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_is_named_and_not_run(tmp_path, content, zipped):
    target = tmp_path / "run"
    content["config"]["cmd"]["seed"] = Hostile(target)
    path = tmp_path / "evil.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    refuse(path, r"its pickle asks for (posix|nt)\.system, which no eSCN checkpoint needs. Nothing was executed")
    assert not target.exists()


def test_torch_itself_would_not_run_it_either(tmp_path, content, monkeypatch):
    """The second line of defence, with the first one taken away."""
    target = tmp_path / "run"
    content["config"]["cmd"]["seed"] = Hostile(target)
    torch.save(content, tmp_path / "evil.pt")
    monkeypatch.setattr("escn_calc.checkpoints.fair.inspect_archive", lambda path: None)
    refuse(tmp_path / "evil.pt", r"cannot be unpickled \(UnpicklingError\)")
    assert not target.exists()


def test_foreign_class_is_named(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "module.pt")
    refuse(tmp_path / "module.pt", r"asks for torch\.nn\.modules\.linear\.Linear")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_bare_pickles_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "bare.pt"
    path.write_bytes(pickle.dumps({"state_dict": Hostile("x")}, protocol=protocol))
    refuse(path, r"system, which no eSCN" if protocol else "a text file")


def test_harmless_bare_pickle_is_not_loaded_either(tmp_path):
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"a": [1, (2, 3)], "b": OrderedDict()}))
    refuse(tmp_path / "bare.pt", "bare pickle or a torch file older than 1.6")


def test_extension_opcodes_and_text_identifiers_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="asks for opcode EXT1"):
        scan_pickle(tmp_path, io.BytesIO(b"\x80\x02\x82\x01."))
    with pytest.raises(CheckpointError, match="asks for opcode PERSID"):
        scan_pickle(tmp_path, io.BytesIO(b"P1\n."))


def test_scan_follows_memo_and_marks(tmp_path):
    text = pickle.dumps([OrderedDict(a=(1, 2, 3, 4)), OrderedDict(), "x", "x"], protocol=2)
    assert scan_pickle(tmp_path, io.BytesIO(text)).globals == ("collections.OrderedDict",)


@pytest.mark.parametrize("data", [b"\x80\x02", b"\x80\x02h\x07.", b"\x80\x020.", b"\x80\x02\xff."])
def test_malformed_pickle(tmp_path, data):
    with pytest.raises(CheckpointError, match="its pickle is malformed"):
        scan_pickle(tmp_path, io.BytesIO(data))


def test_a_hostile_name_is_reported_even_if_the_pickle_breaks_off(tmp_path):
    with pytest.raises(CheckpointError, match=r"asks for os\.system"):
        scan_pickle(tmp_path, io.BytesIO(b"\x80\x02cos\nsystem\n"))


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (b"<!DOCTYPE html><html>404</html>", r"an HTML or XML page \(a failed download\?\), not a torch checkpoint"),
        (b"  <html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a git-lfs pointer"),
        (b"Not found\n", "a text file"),
        (struct.pack("<Q", 12) + b'{"a":{}}    ', "a safetensors file"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "a compressed file"),
        (b"\x93NUMPY\x01\xff" + bytes(40), "an unknown kind of file"),
    ],
)
def test_other_files_are_told_apart(tmp_path, head, match):
    (tmp_path / "x.pt").write_bytes(head)
    refuse(tmp_path / "x.pt", match)


def test_empty_file_folder_and_missing_file(tmp_path):
    (tmp_path / "x.pt").touch()
    refuse(tmp_path / "x.pt", "is empty; fetch or copy it again")
    with pytest.raises(InputError, match="is not a file"):
        read_fair(tmp_path)
    with pytest.raises(InputError, match=r"there is no file .*y\.pt"):
        read_fair(tmp_path / "y.pt")


@pytest.mark.parametrize("fraction", [0.001, 0.3, 0.99])
def test_truncated_file(tmp_path, sound, fraction):
    data = sound.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: int(fraction * len(data))])
    refuse(tmp_path / "cut.pt", "truncated or damaged zip archive")


def test_one_flipped_bit_in_a_weight(tmp_path, sound):
    data = bytearray(sound.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bit.pt").write_bytes(data)
    refuse(tmp_path / "bit.pt", r"checksum of checkpoint/data/\d+ is wrong: the file is damaged")


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, sound):
    bomb = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb/data.pkl", "w", force_zip64=True) as stream,
    ):
        for _ in range(256):
            stream.write(bytes(2**20))
    assert bomb.stat().st_size < 2**20
    refuse(bomb, r"bomb/data.pkl is compressed \(\d+ bytes declared to expand to 268435456\)")


def test_compressed_copy_of_a_sound_file(tmp_path, sound):
    path = rewrite(sound, tmp_path / "x.pt", lambda name, data: (name, data), zipfile.ZIP_DEFLATED)
    refuse(path, "is compressed .* torch stores its records uncompressed")


def test_absurdly_long_pickle(tmp_path, sound, monkeypatch):
    monkeypatch.setattr("escn_calc.checkpoints.archive.MAX_PICKLE_BYTES", 1000)
    refuse(sound, r"data.pkl takes \d+ bytes; no eSCN checkpoint needs more than 1000 bytes beside its tensors")


def test_two_members_of_one_name(tmp_path, sound):
    path = rewrite(sound, tmp_path / "x.pt", lambda name, data: (name, data))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr("checkpoint/data.pkl", b"\x80\x02N.")
    refuse(path, "two members of the same name")


def _central_directory_field(data: bytearray, name: bytes, offset: int) -> int:
    """Return the position of a field of the central directory entry of ``name``."""
    position = -1
    while (position := data.find(b"PK\x01\x02", position + 1)) >= 0:
        if data[position + 46 : position + 46 + len(name)] == name:
            return position + offset
    raise AssertionError(name)


def test_overlapping_members(tmp_path, sound):
    path = rewrite(sound, tmp_path / "x.pt", lambda name, data: (name, data))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = archive.getinfo("checkpoint/data/0").header_offset
    field = _central_directory_field(data, b"checkpoint/data/1", 42)
    data[field : field + 4] = struct.pack("<I", first + 8)
    path.write_bytes(data)
    refuse(path, "zip members overlap at checkpoint/data/1")


def test_member_that_reaches_beyond_the_file(tmp_path, sound):
    path = rewrite(sound, tmp_path / "x.pt", lambda name, data: (name, data))
    with zipfile.ZipFile(path) as archive:
        last = archive.infolist()[-1].filename
    data = bytearray(path.read_bytes())
    field = _central_directory_field(data, last.encode(), 20)
    data[field : field + 8] = struct.pack("<II", 2**30, 2**30)
    path.write_bytes(data)
    refuse(path, "reach beyond the end of the file")


def test_tensor_that_claims_more_bytes_than_its_record(tmp_path, content):
    path = tmp_path / "x.pt"
    torch.save(content, path)
    target = rewrite(path, tmp_path / "y.pt", lambda name, data: (name, data[:-4] if name.endswith("data/5") else data))
    refuse(target, r"tensor record 5 should hold \d+ bytes, the archive has \d+ bytes")


def test_tensor_without_record(tmp_path, sound):
    path = rewrite(sound, tmp_path / "x.pt", lambda name, data: None if name.endswith("data/5") else (name, data))
    refuse(path, "tensor record 5 should hold .* has no such record")


def test_tensor_reference_of_an_unknown_form(tmp_path, sound):
    strange = b"\x80\x02K\x01Q."
    path = rewrite(sound, tmp_path / "x.pt", lambda name, data: (name, strange if name.endswith("data.pkl") else data))
    refuse(path, "refers to a tensor in an unknown way: 1")


@pytest.mark.parametrize(
    ("member", "match"),
    [
        ("x/constants.pkl", "is a TorchScript archive"),
        ("x/code/__torch__.py", "is a TorchScript archive"),
        ("x/data/aotinductor/model/a.so", r"compiled or exported torch program \(\.pt2\)"),
        ("x/archive_format", r"compiled or exported torch program \(\.pt2\)"),
        ("word/document.xml", r"zip archive with 0 members \*/data\.pkl, not a torch file"),
    ],
)
def test_other_zip_archives(tmp_path, member, match):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr(member, b"x")
    refuse(tmp_path / "x.pt", match)


def test_a_real_torchscript_file(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
    refuse(tmp_path / "x.pt", "is a TorchScript archive")


def test_tensor_larger_than_its_storage_is_an_error_of_ours(tmp_path):
    storage = torch.zeros(4)
    path = tmp_path / "x.pt"
    torch.save({"state_dict": {"a": storage}, "config": {}}, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        stored = archive.read("x/data.pkl")
    assert stored.count(b"K\x00K\x04\x85") == 1
    forged = stored.replace(b"K\x00K\x04\x85", b"K\x00K\x7f\x85")
    target = rewrite(path, tmp_path / "y.pt", lambda name, data: (name, forged if name.endswith(".pkl") else data))
    assert data != target.read_bytes()
    refuse(target, "cannot be unpickled")


def test_bytes_of_the_pickle_changed_at_random_give_no_other_error(tmp_path, sound):
    random = Random(20)
    outcomes = set()
    for _ in range(120):

        def change(name, data):
            if name.endswith("data.pkl"):
                data = bytearray(data)
                for _ in range(random.choice([1, 1, 3])):
                    position, other = random.randrange(len(data)), random.randrange(len(data))
                    data[position : position + random.randrange(4)] = data[other : other + random.randrange(4)]
            return name, bytes(data)

        try:
            read_fair(rewrite(sound, tmp_path / "x.pt", change))
            outcomes.add("read")
        except CheckpointError as error:
            outcomes.add("malformed" if "is malformed" in str(error) else "later")
    assert outcomes == {"read", "malformed", "later"}


def test_tensor_made_of_something_else(tmp_path, sound):
    """A tuple in the place of a storage passes the scan and breaks torch's own reader."""
    forged = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((K\x01tK\x00K\x01\x85K\x01\x85\x89NtR."
    path = rewrite(sound, tmp_path / "x.pt", lambda name, data: (name, forged if name.endswith("data.pkl") else data))
    refuse(path, "cannot be unpickled")


def test_the_two_lists_of_types_name_the_same():
    torchs = {item[1] if isinstance(item, tuple) else f"{item.__module__}.{item.__qualname__}" for item in SAFE_GLOBALS}
    ours = {name.replace("__builtin__", "builtins") for name in ALLOWED_GLOBALS}
    assert torchs - ours == {f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64")}
    assert Global("a.b").name == "a.b"


def test_a_sound_file_passes(sound):
    inspect_archive(sound)


def test_looking_at_an_archive_needs_no_torch(sound):
    code = (
        "import sys, pathlib; from escn_calc.checkpoints.archive import inspect_archive; "
        f"inspect_archive(pathlib.Path({str(sound)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
