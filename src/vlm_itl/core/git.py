"""What git says of the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(*words: str, repository: Path = Path(".")) -> str | None:
    """What git prints, None where it cannot."""
    try:
        done = subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def changed() -> list[str]:
    """Tracked files that differ from the commit."""
    return [line[3:] for line in (git("status", "--porcelain", "--untracked-files=no") or "").splitlines()]
