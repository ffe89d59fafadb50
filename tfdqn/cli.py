"""What the commands share: parsing, one-line errors, results on standard output. No TensorFlow up here."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tfdqn import console, paths
from tfdqn.console import say
from tfdqn.errors import EXIT_BAD_INPUT, EXIT_IO, UserError, nearest


class _Formatter(argparse.HelpFormatter):
    """Adds a default to a help text, where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, "", [], argparse.SUPPRESS) or not action.option_strings:
            return action.help
        return f"{action.help} (%(default)s)"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest right flag."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        words = sys.argv[1:] if argv is None else list(argv)
        for word in words:
            if not _is_utf8(word):
                raise UserError(f"argument {word!r}: is not UTF-8, as all names must be that a run writes down")
        namespace, unknown = self.parse_known_args(words)
        for word in unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            hint = nearest(word.split("=")[0], flags) if word.startswith("-") else "flags begin with --"
            raise UserError(f"unknown argument {word!r}: {hint if len(hint) < 200 else 'see -h'}")
        return namespace


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def converter(flag: str, kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise UserError(f"{flag} {text}: must be {word}") from None

    return convert


def path(flag: str) -> Callable[[str], str]:
    """The type of an argument that names a file or folder; `flag` is empty where it has none."""
    return lambda text: paths.local(flag, text)


def print_result(text: str) -> None:
    """Lines for programs, on standard output. Unlike messages for people they are not dropped where they cannot go.

    Raises:
      BrokenPipeError: its reader went away.
      UserError: it is closed, or its file cannot be written; exit code 5.
    """
    if sys.stdout is None:
        raise UserError("standard output is closed, and the result was to go there", EXIT_IO)
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"standard output: {error.strerror or error}", EXIT_IO) from None


def run(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end the process: one line and its exit code for what a user can mend."""
    if argv is None:
        _take_names_for_utf8()
    try:
        try:
            code = command(argv)
        except SystemExit as end:  # after -h or --version
            code = end.code
        if sys.stdout is not None:
            print_result("")  # what was printed before may still lie in its buffer
    except UserError as error:
        say("tfdqn: error: " + " ".join(str(error).splitlines()))  # one line, whatever it quotes
        code = error.exit_code
    except PermissionError as error:  # a folder of others, met wherever a command looks into it
        say(f"tfdqn: error: {error.filename or 'a file'}: {error.strerror or error}")
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        say("stopped by SIGINT")
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output went away
        code = EXIT_BAD_INPUT
    console.end_live()
    for stream in (sys.stdout, sys.stderr):
        console.settle(stream)
    sys.exit(code)


def _take_names_for_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode, unless the locale has names and files in UTF-8 anyway.

    What Python, TensorFlow and HDF5 take a name for is then the same; so is a file whatever the locale that it is read
    in. (Python does so by itself in the locales C and POSIX.)
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if getattr(sys.stdout, "encoding", None) not in (None, "utf-8", "UTF-8"):
        sys.stdout.reconfigure(encoding="utf-8")  # as where PYTHONIOENCODING is set: --print-config makes a file
