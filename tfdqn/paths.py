"""File names that users give, by whatever flag or setting."""

from __future__ import annotations

import os
import re
import sys

from tfdqn.errors import UserError


def local(flag: str, text: str) -> str:
    """A file or folder as it was named, `~` expanded.

    Raises:
      UserError: it is the address of something that is not on this machine, or a name that not all of the libraries
        that open files here would read alike.
    """
    where = f"{flag} {text}".strip()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise UserError(f"{where}: only local files and folders work; name one, such as runs")
    if "\0" in text:
        raise UserError(f"{flag} {text!r}: no file has such a name; name another")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and text.startswith("~"):
        raise UserError(f"{where}: no such user; name another folder, or ./{text}")
    if not expanded.isascii() and sys.getfilesystemencoding() != "utf-8":
        encoding = sys.getfilesystemencoding()
        raise UserError(f"{where}: not ASCII, and Python takes file names for {encoding}; start it with -X utf8")
    return expanded
