"""Folders that slidr makes on disks: nobody but their owner gets in, since they hold users and addresses."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

MODE = 0o700


def private(path: Path) -> Path:
    """Makes the folder and its missing parents for the owner alone; what exists keeps its permissions, so a team can share one."""
    for folder in reversed([place for place in (path, *path.parents) if not place.exists()]):
        folder.mkdir(mode=MODE, exist_ok=True)
    return path


def private_root(root: str) -> None:
    """The same for a root that may be a URI; other stores than disks have permissions of their own."""
    uri = urlsplit(root)
    if not uri.scheme or uri.scheme == "file":
        private(Path(unquote(uri.path) if uri.scheme else root))
