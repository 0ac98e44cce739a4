"""Errors that are the user's to mend: one clear line, exit code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave is wrong; the message says what, where and how to fix it."""


def unknown(what: str, name: object, known: Iterable[str], where: str = "") -> UserError:
    """Return the error for an unknown name, with the nearest known one.

    Args:
        what: The kind of name, such as ``rule`` or ``key``.
        name: What was given.
        known: The names that exist.
        where: Where it was given, such as a file.
    """
    known = sorted(known)
    longer = [k for k in known if len(str(name)) > 2 and str(name) in k]  # snakes: rotating_snakes rather than shapes
    close = difflib.get_close_matches(str(name), longer or known, n=1, cutoff=0.0 if longer else 0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
    return UserError(f"{where + ': ' if where else ''}unknown {what} {name!r}; {hint}")
