"""Which code ran."""

from functools import cache
from hashlib import sha256
from pathlib import Path

import slidr


@cache
def code_version() -> str:
    """The release and a hash of the package's sources: a fix between two releases may decide otherwise too."""
    root, digest = Path(slidr.__file__).parent, sha256()
    for path in sorted(root.rglob("*.py"), key=str):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return f"{slidr.__version__}+{digest.hexdigest()[:12]}"
