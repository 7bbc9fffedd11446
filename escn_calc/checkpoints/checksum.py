"""The digest by which a weight file is known."""

import hashlib
from pathlib import Path

BYTES_AT_ONCE = 2**22


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(BYTES_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()
