"""What ``.gitignore`` files say, each about what lies below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pathspec import GitIgnoreSpec

_FILE = ".gitignore"
_NEVER = ".git"


class Ignored:
    """The rules that hold in one folder: its own, then those of the folders above it.

    Only the files of the tree count: neither ``.git/info/exclude`` nor the user's own settings,
    which other machines do not have.
    """

    def __init__(self, above: tuple[tuple[str, GitIgnoreSpec], ...] = ()) -> None:
        self._rules = above

    def below(self, folder: Path, path: str) -> Ignored:
        """Return the rules in a folder; ``path`` is relative to the tree, empty for the tree.

        Raises:
            OSError: there are rules that cannot be read.
        """
        file = folder / _FILE
        if file.is_symlink() or not file.is_file():
            return self
        from pathspec import GitIgnoreSpec  # noqa: PLC0415 - only where there is such a file

        lines = file.read_text(errors="replace").splitlines()
        prefix = f"{path}/" if path else ""
        return Ignored(((prefix, GitIgnoreSpec.from_lines(lines)), *self._rules))

    def hit(self, path: str, *, folder: bool) -> bool:
        """Say whether a path of the tree is left out; the nearest file that says so decides."""
        if path.rpartition("/")[2] == _NEVER:
            return True
        for prefix, rules in self._rules:
            name = path.removeprefix(prefix) + ("/" if folder else "")
            for pattern in reversed(list(rules.patterns)):
                if pattern.include is not None and _hits(pattern, name):
                    return pattern.include
        return False


def _hits(pattern: Any, name: str) -> bool:
    """Say whether a pattern means a path itself, and not only a folder above it.

    The library asks about files alone, and takes what lies below a folder as meant by the
    folder's pattern. Git decides about each folder on the way down, as we do, so that
    ``!folder`` brings the folder back and nothing in it.
    """
    for match in pattern.regex.finditer(name):
        if "ps_d" in match.re.groupindex:
            if match.end("ps_d") in {-1, len(name)}:
                return True
        elif not (name.endswith("/") and match.end() == len(name)):
            return True  # "folder/**" means what is below, not the folder
    return False
