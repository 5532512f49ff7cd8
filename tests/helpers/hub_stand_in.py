"""Stands for ``huggingface_hub`` where it is not installed: as much of it as we use, in memory.

The library itself, against a server on this machine, is in ``tests/integrations/test_hub.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace


class HfHubHTTPError(OSError):
    def __init__(self, text="", status=500):
        super().__init__(text)
        self.response = SimpleNamespace(status_code=status)


class RepositoryNotFoundError(HfHubHTTPError): ...


class GatedRepoError(RepositoryNotFoundError): ...


class RevisionNotFoundError(HfHubHTTPError): ...


class EntryNotFoundError(Exception): ...


class LocalEntryNotFoundError(EntryNotFoundError, FileNotFoundError): ...


class HFValidationError(ValueError): ...


ERRORS = (
    *(HfHubHTTPError, RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError),
    *(EntryNotFoundError, LocalEntryNotFoundError, HFValidationError),
)


class ModelHubMixin:
    """The part of the mixin that calls what a class defines."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **options):
        usual = {"revision": None, "cache_dir": None, "token": None}
        usual |= {"force_download": False, "local_files_only": False}
        found = cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path), **{**usual, **options}
        )
        return found.eval()

    def save_pretrained(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(Path(folder))

    def push_to_hub(self, repo_id, **options):
        return repo_id, options


class Hub:
    """Repositories in memory, and every call with its arguments.

    Attributes:
        repos: content of the files of each repository, by name and path.
        calls: (name, arguments, options) of each call.
        error: raised by the next calls; None for no error.
    """

    def __init__(self, folder):
        self.folder, self.repos, self.calls, self.error = folder, {}, [], None

    def install(self, monkeypatch):
        package = ModuleType("huggingface_hub")
        package.constants = SimpleNamespace(HF_HUB_OFFLINE=False)
        package.errors = SimpleNamespace(**{kind.__name__: kind for kind in ERRORS})
        package.HfApi, package.ModelHubMixin = (lambda: self), ModelHubMixin
        package.hf_hub_download = self.hf_hub_download
        for name in ("constants", "errors"):
            monkeypatch.setitem(sys.modules, f"huggingface_hub.{name}", getattr(package, name))
        monkeypatch.setitem(sys.modules, "huggingface_hub", package)
        return package

    def _called(self, name, *words, **options):
        self.calls.append((name, words, options))
        if self.error is not None:
            raise self.error

    def hf_hub_download(self, repo, file, **options):
        self._called("download", repo, file, **options)
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.repos[repo][file])
        return str(path)

    def list_repo_files(self, repo, **options):
        self._called("list", repo, **options)
        return list(self.repos[repo])

    def create_repo(self, repo, **options):
        self._called("repo", repo, **options)
        self.repos.setdefault(repo, {})

    def create_branch(self, repo, **options):
        self._called("branch", repo, **options)

    def file_exists(self, repo, file, **options):
        self._called("exists", repo, file, **options)
        return file in self.repos[repo]

    def upload_folder(self, *, repo_id, folder_path, **options):
        self._called("upload", repo_id, **options)
        for path in Path(folder_path).iterdir():
            self.repos[repo_id][path.name] = path.read_bytes()
