"""Which code ran."""

from functools import cache
from hashlib import sha256

import slidr
from slidr import package


@cache
def code_version() -> str:
    """The release and a hash of the package's sources: a fix between two releases may decide otherwise too."""
    digest = sha256()
    for name, content in package.sources():
        digest.update(f"{name}\0".encode() + content)
    return f"{slidr.__version__}+{digest.hexdigest()[:12]}"
