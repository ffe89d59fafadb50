"""What the commands share: parsing, one-line errors, devices. No TensorFlow up here."""

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
        if action.default in (None, False, "", argparse.SUPPRESS) or not action.option_strings:
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


def gpu_names() -> list[str]:
    """GPUs that TensorFlow sees. Imports TensorFlow."""
    import tensorflow as tf

    return [device.name for device in tf.config.list_physical_devices("GPU")]


# Deterministic kernels, and the same ones in every process: XLA otherwise times several and keeps the fastest, which
# may be another one the next time. (TensorFlow 2.21; XLA ends the process where it does not know a flag.)
DETERMINISTIC_XLA_FLAG = "--xla_gpu_deterministic_ops=true"
# Every operation of a program by its name in a profiler's trace. On a CPU it doubles the time of small programs.
TRACE_XLA_FLAG = "--xla_cpu_enable_xprof_traceme=true"


def add_xla_flag(flag: str, reason: str) -> None:
    """Have XLA read a flag beside what the user gave it; call it before TensorFlow is imported.

    Raises:
      UserError: XLA_FLAGS names a file of flags, to which none can be added; `reason` is whose flag it is.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if flags and not flags.startswith("-"):
        raise UserError(f"{reason}: XLA_FLAGS names a file, {flags}; put the flags themselves into XLA_FLAGS")
    # The last one counts where a flag is given twice.
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def make_deterministic() -> None:
    """Have the same program give the same bits in every run, on a GPU too; call it before TensorFlow is imported."""
    add_xla_flag(DETERMINISTIC_XLA_FLAG, "--deterministic")

    import tensorflow as tf

    # For what runs outside XLA; a random operation without a seed raises from now on.
    tf.config.experimental.enable_op_determinism()


def choose_device(wanted: str, deterministic: bool = False, threads: int = 0, profile: bool = False) -> str:
    """The TensorFlow device for "auto", "cpu" or "gpu"; imports TensorFlow, unless "cpu" and nothing more is asked for.

    Args:
      wanted: as `--device`.
      deterministic: as `--deterministic`.
      threads: as `--threads`; TF_NUM_INTRAOP_THREADS wins where the user has set it.
      profile: a trace is to be taken, in which a CPU's operations shall have their names.

    Raises:
      UserError: "gpu" was asked for and there is none, or `add_xla_flag` has raised it.
    """
    if wanted == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # leave the GPU's memory to others
    if threads:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))  # read when TensorFlow starts its devices
    if profile:
        add_xla_flag(TRACE_XLA_FLAG, "--profile")
    if deterministic:
        make_deterministic()
    if wanted == "cpu":
        return "/CPU:0"
    if gpu_names():
        return "/GPU:0"
    if wanted == "gpu":
        raise UserError("--device gpu: TensorFlow sees no GPU on this machine; use --device cpu (or auto)")
    return "/CPU:0"
