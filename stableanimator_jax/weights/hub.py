"""Directories by name: on disk, or `hf://OWNER/REPOSITORY[@REVISION]` on the Hugging Face hub.

Downloads, their cache (`HF_HOME`), tokens (`HF_TOKEN`, or `hf auth login`) and offline mode (`HF_HUB_OFFLINE=1`) are
huggingface_hub's. Only the files asked for are downloaded.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from stableanimator_jax.errors import InputError

SCHEME = "hf://"
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?/?")


def is_on_hub(name: str) -> bool:
    return name.startswith(SCHEME)


def local_directory(name: str, patterns: Sequence[str], *, without: Sequence[str] = ()) -> Path:
    """The directory that `name` means; what lies on the hub is downloaded to the cache first.

    Args:
        name: a directory, or `hf://OWNER/REPOSITORY[@REVISION]`.
        patterns: the files needed of a repository, as shell patterns.
        without: patterns of files that are not, whatever `patterns` says.

    Raises:
        InputError: there is no such directory or repository, or the hub does not answer and the cache has no copy.
    """
    if is_on_hub(name):
        return _download(name, patterns, without)
    path = Path(name)
    if not path.is_dir():
        raise InputError(f"{path} is a file; name its directory" if path.exists() else f"{path} does not exist")
    return path


def _download(name: str, patterns: Sequence[str], without: Sequence[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    match = _NAME.fullmatch(name.removeprefix(SCHEME))
    if match is None:
        raise InputError(f"{name} is not a repository of the Hugging Face hub: write {SCHEME}OWNER/REPOSITORY")
    repository, revision = match["repository"], match["revision"]
    try:
        place = snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(without)
        )
        return Path(place)
    except errors.GatedRepoError as e:
        raise InputError(
            f"{name} is gated: accept its terms on its page, then give your token (`hf auth login`, or HF_TOKEN)"
        ) from e
    except errors.RepositoryNotFoundError as e:
        raise InputError(f"{name}: the hub has no such repository, or it is private and needs HF_TOKEN") from e
    except errors.RevisionNotFoundError as e:
        raise InputError(f"{name}: the repository has no revision {revision!r}") from e
    except Exception as e:  # offline and not in the cache, a full disk, or the HTTP library's own
        reason = e.strerror if isinstance(e, OSError) and e.strerror else type(e).__name__
        raise InputError(
            f"{name} cannot be downloaded ({reason}) and is not in the cache: go online, unset HF_HUB_OFFLINE, or "
            "download it elsewhere and give the directory"
        ) from e
