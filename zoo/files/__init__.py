"""Writing files and folders whole or not at all, locks of folders, the cache, natural order.

A file is written under a temporary name in its folder and then renamed, so readers never see half a
file. A killed process leaves its temporary file behind; the next process that writes to the folder
removes it.
"""

from __future__ import annotations

from zoo.files.folders import partial_folder
from zoo.files.owner import owned_folder
from zoo.files.paths import cache_folder, is_same_file, natural_key, write_error
from zoo.files.single import check_writable, partial_file, write_bytes, write_text, write_whole
from zoo.files.temporary import remove_leftovers

__all__ = [
    "cache_folder",
    "check_writable",
    "is_same_file",
    "natural_key",
    "owned_folder",
    "partial_file",
    "partial_folder",
    "remove_leftovers",
    "write_bytes",
    "write_error",
    "write_text",
    "write_whole",
]
