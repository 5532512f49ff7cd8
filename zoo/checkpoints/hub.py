"""Weights on the Hugging Face Hub: ``hf:OWNER/REPO/FILE``, or ``hf:OWNER/REPO`` for its only file.

``huggingface_hub`` downloads them: into its cache, going on where an interrupted download has
stopped, with the login of ``hf auth login``, and without network if ``HF_HUB_OFFLINE`` is 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import CheckpointError, ZooError, pip_install, reason_of, shown

PREFIX = "hf:"
"""Start of the address of a file on the Hub."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
"""Suffixes of weights."""

STANDARD = "model.safetensors"
"""Name under which the libraries of the Hub keep the weights of a network."""


class Address(NamedTuple):
    """A file on the Hub.

    Attributes:
        repo: owner and name of the repository.
        file: path of the file in it; empty for its only file of weights.
        revision: branch, tag or commit; None for the main branch.
    """

    repo: str
    file: str
    revision: str | None


def is_address(source: object) -> bool:
    """Whether a source of weights is the address of a file on the Hub."""
    return str(source)[: len(PREFIX)].lower() == PREFIX


_WEB = re.compile(r"https?:/+([^/]+)/(.*)", re.IGNORECASE)
_PAGE = re.compile(r"([^/]+/[^/]+)(?:/(?:resolve|blob|raw|tree)/([^/]+))?/?(.*)")


def check_no_web_address(source: str | Path) -> None:
    """Refuse the address of a page or a file in the web; nothing is fetched from there.

    Raises:
        CheckpointError: if it is one; the message has the address that is taken, for files on the
            Hub, or says to download it.
    """
    web = _WEB.fullmatch(str(source).replace("\\", "/"))
    if web is None:
        return
    page = (
        _PAGE.fullmatch(web[2].partition("?")[0])
        if web[1].lower() in ("huggingface.co", "hf.co")
        else None
    )
    advice = "download it, and name the file"
    if page is not None:
        revision = f"@{page[2]}" if page[2] not in (None, "main") else ""
        advice = f"write {PREFIX}{page[1]}{revision}" + (f"/{page[3]}" if page[3] else "")
    address = f"https://{web[1]}/{web[2]}"  # a path joins several separators to one
    raise CheckpointError(f"{shown(address)}: weights are not read from the web; {advice}")


def parsed(source: str | Path) -> Address:
    """Split an address ``hf:OWNER/REPO[@REVISION][/FILE]``.

    Raises:
        CheckpointError: if it has no owner or no repository, or leads out of it.
    """
    # A path of another system has other separators, and Path joins several to one.
    whole = str(source).replace("\\", "/").removesuffix("/")
    if is_address(whole):
        # hf:// is how the Hub's own file system writes it; a path has one of the two slashes.
        whole = whole[len(PREFIX) :].removeprefix("/").removeprefix("/")
    parts = whole.split("/")
    owner, (name, _, revision) = parts[0], (parts[1] if len(parts) > 1 else "").partition("@")
    if revision == "refs" and len(parts) > 3:  # such as refs/pr/1, the one name with slashes
        revision, parts[2:4] = "/".join([revision, *parts[2:4]]), []
    if not (owner and name) or any(part in ("", ".", "..") for part in parts[2:]):
        raise CheckpointError(
            f"{shown(str(source))}: write {PREFIX}OWNER/REPO/FILE, such as "
            f"{PREFIX}cguoh/MambaIR/x4.pth; a revision goes after the name, {PREFIX}OWNER/REPO@v2"
        )
    return Address(f"{owner}/{name}", "/".join(parts[2:]), revision or None)


def fetched(source: str | Path) -> Path:
    """Return the file of an address in the cache, after downloading it if it is not there.

    Raises:
        CheckpointError: if the address is wrong, or there is no such file.
        ZooError: if ``huggingface_hub`` is missing, the repository needs a login, or the Hub does
            not answer.
    """
    address, hub = parsed(source), imported()
    if not address.file:
        address = address._replace(file=_only_file(hub, str(source), address))
    with explained(hub, str(source)):
        path = hub.hf_hub_download(address.repo, address.file, revision=address.revision)
    return Path(path)


def files_of(address: Address) -> list[str]:
    """Return the files of weights in a repository.

    Raises:
        ZooError: as :func:`fetched`.
    """
    hub = imported()
    with explained(hub, f"{PREFIX}{address.repo}"):
        names = hub.HfApi().list_repo_files(address.repo, revision=address.revision)
    return [name for name in names if name.endswith(SUFFIXES)]


def _only_file(hub: Any, what: str, address: Address) -> str:
    """Return the file of weights in a repository.

    Without network, the name that the libraries of the Hub use is taken.
    """
    if hub.constants.HF_HUB_OFFLINE:
        return STANDARD
    names = files_of(address)
    if STANDARD in names or len(names) == 1:
        return STANDARD if STANDARD in names else names[0]
    known = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    found = f"has {len(names)} files of weights ({known})" if names else "has no file of weights"
    raise CheckpointError(f"{what}: the repository {found}; name one: {PREFIX}{address.repo}/FILE")


def imported() -> Any:
    """Return the library ``huggingface_hub``.

    Raises:
        ZooError: if it is missing.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise ZooError(f"the Hub needs huggingface_hub: {pip_install('hub')}") from error
    return huggingface_hub


@contextmanager
def explained(hub: Any, what: str) -> Iterator[None]:
    """Within the block, errors of the Hub become one sentence that says what to do.

    Args:
        hub: the library.
        what: the address, for the message.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        said = _said(hub.errors, what, error)
        if said is None:
            raise
        raise said from error


def _said(errors: Any, what: str, error: Exception) -> ZooError | None:
    """Return what to say of an error; None if it is none of the Hub or the network."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    login = "run 'hf auth login', or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError) or code == 403:
        return ZooError(f"{what}: you may not read this; ask for access on its page, then {login}")
    if isinstance(error, errors.RepositoryNotFoundError) or code == 401:
        return CheckpointError(
            f"{what}: there is no such repository, or it is private; check the name, or {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{what}: the repository has no such revision")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return ZooError(
            f"{what}: the file is not in the cache, and the Hub cannot be reached; check the "
            "network, and that HF_HUB_OFFLINE is not set"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return CheckpointError(f"{what}: the repository has no such file")
    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f"{what}: this is no name of a repository")
    if isinstance(error, (OSError, errors.HfHubHTTPError)) or "httpx" in type(error).__module__:
        return ZooError(f"{what}: the Hub does not answer ({reason_of(error)}); try again later")
    return None
