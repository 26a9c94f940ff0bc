"""Where a bundle may be fetched from: only below the artifact root of the configuration, whatever the registry's database says."""

from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from slidr.errors import ModelRefusedError


def artifact_root(artifacts: str) -> str:
    """The configured artifact root as a URI; a folder becomes a file URI."""
    return artifacts if urlsplit(artifacts).scheme else Path(artifacts).expanduser().resolve().as_uri()


def require_inside(root: str, source: str) -> None:
    """Raises ModelRefusedError unless `source` lies below `root`: same store, no way out by dots, escapes or links."""
    allowed, found = urlsplit(root), urlsplit(source)
    same_store = (found.scheme, found.netloc) == (allowed.scheme, allowed.netloc)
    if not same_store or found.query or found.fragment or not _is_plain(found) or not _is_below(found, allowed):
        raise ModelRefusedError(f"expected a bundle inside {root}, found another place in the registry; nothing was read")


def local_path(uri: str) -> Path | None:
    """The folder of a file URI; None for what must be fetched."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _is_plain(uri: SplitResult) -> bool:
    """No empty part, no dots, nothing that is still escaped after one unescaping, no backslash."""
    path = unquote(uri.path)
    return not set(path) & set("%\\\0#?") and not {"", ".", ".."} & set(path.strip("/").split("/")) and not path.startswith("//")


def _is_below(found: SplitResult, root: SplitResult) -> bool:
    if found.scheme == "file":
        return Path(unquote(root.path)).resolve() in Path(unquote(found.path)).resolve().parents
    return unquote(found.path).rstrip("/").startswith(unquote(root.path).rstrip("/") + "/")
