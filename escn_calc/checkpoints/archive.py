"""Looks at a file that claims to be a torch checkpoint before anything of it is loaded.

A ``.pt`` file is a zip archive of raw tensor bytes and one pickle. The pickle is a program; here its opcodes are
read, never run. A file passes only if the archive is plainly stored, and if every type its pickle names is on
:data:`ALLOWED_GLOBALS` and every tensor it announces is really there in full.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from escn_calc.errors import CheckpointError, InputError

STORAGE_ITEM_SIZES = {
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
}
PLAIN_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.Size",
        "torch.device",
        "_codecs.encode",
    }
)
USER_FILE_GLOBALS = frozenset(
    {
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "collections.defaultdict",
        "__builtin__.dict",
        "__builtin__.list",
    }
)
"""Harmless types that training scripts of users have left in a configuration or in metrics."""
ALLOWED_GLOBALS = PLAIN_GLOBALS | USER_FILE_GLOBALS | frozenset(STORAGE_ITEM_SIZES)

MAX_PICKLE_BYTES = 256 * 2**20
SNIFFED_BYTES = 512
LEGACY_PICKLES = 5


@dataclass(frozen=True)
class Global:
    """A ``module.name`` that a pickle asks for."""

    name: str


@dataclass(frozen=True)
class PickleContents:
    """What the opcodes of one pickle refer to."""

    globals: tuple[str, ...]
    storages: tuple[object, ...]


class _Mark:
    """The marker that pickle opcodes push below a variable number of items."""


_MARK = _Mark()


def inspect_archive(path: Path) -> None:
    """Check that ``path`` is a torch zip archive that is whole, plainly stored and names only allowed types.

    Raises
    ------
    InputError
        If there is no such file, or it is a folder.
    CheckpointError
        If the file is empty, something else, damaged, a zip bomb, or its pickle names a type outside the list.
    """
    _require_file(path)
    _require_torch_zip(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _refuse_programs(path, members)
            _require_plain_members(path, members)
            pickle_name = _find_pickle(path, members)
            contents = scan_pickle(path, io.BytesIO(archive.read(pickle_name)))
            _require_whole_storages(path, contents.storages, pickle_name.removesuffix("data.pkl"), members)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: truncated or damaged zip archive ({error}); fetch or copy it again") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: checksum of {damaged} is wrong: the file is damaged; fetch or copy it again")


def scan_pickle(path: Path, data: BinaryIO) -> PickleContents:
    """Follow the opcodes of a pickle without executing any, and collect the types and tensors it refers to.

    Raises
    ------
    CheckpointError
        If the pickle is malformed or names a type outside :data:`ALLOWED_GLOBALS`.
    """
    reader = _OpcodeReader()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            reader.follow(opcode, argument)
    except (ValueError, IndexError, KeyError) as error:
        _require_allowed(path, reader.globals)
        raise CheckpointError(f"{path}: its pickle is malformed ({error})") from error
    _require_allowed(path, reader.globals)
    return PickleContents(tuple(reader.globals), tuple(reader.storages))


class _OpcodeReader:
    """The stack of an unpickler in which every object except strings, integers, tuples and globals is None."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.globals: list[str] = []
        self.storages: list[object] = []

    def follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        name = opcode.name
        if name == "MARK":
            self.stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(str(argument))] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(str(argument))])
        else:
            popped = self._pop_operands(opcode)
            self.stack.extend([self._result(name, argument, popped)] * len(opcode.stack_after))

    def _pop_operands(self, opcode: pickletools.OpcodeInfo) -> list[object]:
        popped: list[object] = []
        for operand in reversed(opcode.stack_before):
            if operand is pickletools.markobject:
                continue
            if operand is pickletools.stackslice:
                while (item := self.stack.pop()) is not _MARK:
                    popped.append(item)
            else:
                popped.append(self.stack.pop())
        return popped[::-1]

    def _result(self, name: str, argument: object, popped: list[object]) -> object:
        if name in ("GLOBAL", "INST"):
            return self._named(str(argument).replace(" ", "."))
        if name == "STACK_GLOBAL":
            return self._named(".".join(str(part) for part in popped))
        if name.startswith("EXT") or name == "PERSID":
            return self._named(f"opcode {name}")
        if name == "BINPERSID":
            self.storages.append(popped[0])
            return None
        if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"):
            return tuple(popped)
        return argument

    def _named(self, name: str) -> Global:
        self.globals.append(name)
        return Global(name)


def _require_allowed(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if name not in ALLOWED_GLOBALS:
            raise CheckpointError(
                f"{path}: its pickle asks for {name}, which no eSCN checkpoint needs. Nothing was executed. "
                "Do not load this file with other tools unless you trust whoever made it"
            )


def _require_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"there is no file {path}")
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; fetch or copy it again")


def _require_torch_zip(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(SNIFFED_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return
    if head.startswith(b"\x80"):
        _scan_bare_pickles(path)
        raise CheckpointError(
            f"{path} is a bare pickle or a torch file older than 1.6, not a torch zip archive; "
            "no eSCN was published that way. Save it again with a current torch.save"
        )
    raise CheckpointError(f"{path} is {_describe(head)}, not a torch checkpoint")


def _scan_bare_pickles(path: Path) -> None:
    """Scan the pickles at the head of the file: torch before 1.6 wrote five, then raw tensor bytes."""
    with path.open("rb") as stream:
        data = io.BytesIO(stream.read(MAX_PICKLE_BYTES))
    for _ in range(LEGACY_PICKLES):
        if data.tell() < data.getbuffer().nbytes:
            scan_pickle(path, data)


def _describe(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "an HTML or XML page (a failed download?)"
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer (run `git lfs pull` to get the file itself)"
    if head[8:9] == b"{":
        return "a safetensors file (a native model is a folder with model.safetensors and card.json)"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "a compressed file (unpack it first)"
    try:
        head.decode("ascii")
    except UnicodeDecodeError:
        return "an unknown kind of file"
    return "a text file"


def _require_plain_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{path}: zip archive holds two members of the same name")
    end = 0
    for member in sorted(members, key=lambda item: item.header_offset):
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CheckpointError(
                f"{path}: {member.filename} is compressed ({member.compress_size} bytes declared to expand to "
                f"{member.file_size}); torch stores its records uncompressed, so this is not a file torch wrote"
            )
        if member.header_offset < end:
            raise CheckpointError(f"{path}: zip members overlap at {member.filename}; this is not a file torch wrote")
        end = member.header_offset + member.file_size
    if end > path.stat().st_size:
        raise CheckpointError(f"{path}: zip members reach beyond the end of the file; it is truncated or forged")


def _refuse_programs(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if any(name.endswith((".so", "archive_format", "serialized_exported_program.json")) for name in names):
        raise CheckpointError(
            f"{path} is a compiled or exported torch program (.pt2), not a checkpoint; use the weights it was made from"
        )
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise CheckpointError(f"{path} is a TorchScript archive, not a checkpoint; use the weights it was made from")


def _find_pickle(path: Path, members: list[zipfile.ZipInfo]) -> str:
    pickles = [member for member in members if member.filename.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise CheckpointError(f"{path} is a zip archive with {len(pickles)} members */data.pkl, not a torch file")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{path}: {pickles[0].filename} takes {pickles[0].file_size} bytes; no eSCN checkpoint needs more than "
            f"{MAX_PICKLE_BYTES} bytes beside its tensors"
        )
    return pickles[0].filename


def _require_whole_storages(
    path: Path, storages: Iterable[object], prefix: str, members: list[zipfile.ZipInfo]
) -> None:
    """Compare what the pickle says of each tensor's bytes with the record in the archive.

    torch trusts the pickle here: a number too large would make it read beyond the record.
    """
    sizes = {member.filename: member.file_size for member in members}
    for storage in storages:
        match storage:
            case ("storage", Global(kind), str(key), str(), int(length)) if kind in STORAGE_ITEM_SIZES:
                expected, found = length * STORAGE_ITEM_SIZES[kind], sizes.get(f"{prefix}data/{key}")
            case _:
                raise CheckpointError(f"{path}: its pickle refers to a tensor in an unknown way: {storage}")
        if expected != found:
            raise CheckpointError(
                f"{path}: tensor record {key} should hold {expected} bytes, the archive has "
                f"{'no such record' if found is None else f'{found} bytes'}; the file is damaged or forged"
            )
