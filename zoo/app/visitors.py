"""Who uses the app: one job for each visitor, and how many of them run at once."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from zoo.app.work import Job


class Visitors:
    """The job of each visitor, by the session that Gradio gives them.

    Args:
        folder: where jobs have their folders; nothing outside it is served.
        at_once: how many jobs run at the same time.
    """

    def __init__(self, folder: Path, at_once: int) -> None:
        self.folder = folder
        self.at_once = at_once
        self.slots = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def begin(self, session: str) -> Job:
        """Return a new job of a visitor; what the previous one wrote is removed."""
        self.leave(session)
        job = Job(Path(tempfile.mkdtemp(prefix="job-", dir=self.folder)))
        with self._lock:
            self._jobs[session] = job
        return job

    def cancel(self, session: str) -> None:
        """Cancel the job of a visitor, if there is one."""
        with self._lock:
            job = self._jobs.get(session)
        if job is not None:
            job.cancel()

    def leave(self, session: str) -> None:
        """Forget a visitor: cancel the job, and remove what it has written."""
        with self._lock:
            job = self._jobs.pop(session, None)
        if job is not None:
            job.remove()
