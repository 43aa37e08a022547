"""The ends of a program: a user's error in one sentence, the program's own error with its traceback."""

import contextlib
import errno
import os
import signal
import sys
import threading
from types import SimpleNamespace

from common.errors import UserError
from common.memory import give_back, keep_memory

interrupted = threading.Event()  # Ctrl-C came
held = threading.Event()  # and is not to raise yet


class Stopped(Exception):
    """The run was told to stop (SIGTERM) and has saved what it did."""


def check_interrupted():
    """Raise KeyboardInterrupt if Ctrl-C came. Long loops call it.

    Python raises it by itself, but drops it where it comes in a callback, such as those of starting a process.
    """
    if interrupted.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def program(resume=None):
    """The body of every script: it ends with status 1 and one sentence on an error that a user can mend.

    Args:
        resume: what the same command does after Ctrl-C.

    Those are `UserError`, errors of the operating system (a full disk, a folder without permission), too little memory
    on the GPU, Ctrl-C (status 130), SIGTERM once the run is saved (143). A reader that closes the pipe ends it
    quietly. Any other error keeps its traceback. Characters that the console can't show are replaced.
    """
    keep_memory()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with noting_interrupts():
            yield
            check_interrupted()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush goes there
        sys.exit(1)
    except Stopped as error:
        end(str(error), 143)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or interrupted.is_set():  # it may have ended a worker first
            end(f"interrupted; the same command {resume}" if resume else "interrupted", 130)
        if os.environ.get("SOFTCPT_TRACEBACK") or not is_of_user(error):
            raise
        hint = "" if isinstance(error, UserError) else " (SOFTCPT_TRACEBACK=1 shows where)"  # that says all in itself
        end(f"error: {sentence(error)}{hint}", 1)


@contextlib.contextmanager
def noting_interrupts():
    """Inside, Ctrl-C sets `interrupted` besides raising KeyboardInterrupt; then dropped errors print nothing."""
    own = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    def note(*_):
        interrupted.set()
        if not held.is_set():
            raise KeyboardInterrupt

    interrupted.clear()
    dropped = sys.unraisablehook
    sys.unraisablehook = lambda error: None if interrupted.is_set() else dropped(error)
    if own:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if not interrupted.is_set():  # else objects that were half made are still to be deleted
            sys.unraisablehook = dropped
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def holding_interrupts():
    """Inside, Ctrl-C sets `interrupted` only, and at the end raises KeyboardInterrupt.

    It is for calls to libraries with threads of their own: cut in the middle of a queue's `put`, tensorboard's thread
    does not hear of the item, and closing the writer waits for it for two minutes.
    """
    held.set()
    try:
        yield
    finally:
        held.clear()
    check_interrupted()


@contextlib.contextmanager
def starting_processes():
    """Processes that are started inside never see Ctrl-C; this one sees it at the end.

    Freed memory is given back before: they would share it, and the kernel copy each page that this one fills again,
    which takes several times as long as a new page.
    """
    give_back()
    can_block = hasattr(signal, "pthread_sigmask")  # not on Windows
    if can_block:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        if can_block:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def end_quietly(*_):
    """In a worker process: print nothing where the process that started it has gone."""
    sys.excepthook = lambda kind, *error: (
        None if issubclass(kind, (ConnectionError, EOFError)) else sys.__excepthook__(kind, *error))


@contextlib.contextmanager
def until_sigterm():
    """Yields an object whose `requested` becomes True when a SIGTERM comes, which otherwise does nothing inside."""
    stop = SimpleNamespace(requested=False)
    if threading.current_thread() is not threading.main_thread():  # only there signals can be handled
        yield stop
        return

    def request(*_):
        stop.requested = True

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def end(text, status):
    """Print `text` on stderr and exit."""
    sys.stdout.flush()
    print(text, file=sys.stderr)
    sys.exit(status)


def confirm(question):
    """Ask on the console; True if the answer is y or yes.

    Raises:
        UserError: nobody answers.
    """
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise UserError(f"{question} Nobody answered: scripts say yes by --yes") from None


def is_of_user(error):
    """True if a user can mend what caused an error."""
    return isinstance(error, (UserError, OSError)) or lacks_memory(error)


def lacks_memory(error):
    """True for PyTorch's OutOfMemoryError, which is known by its name, since tables work without PyTorch."""
    return type(error).__name__ == "OutOfMemoryError"


def sentence(error):
    """The message of an error in one line; one raised in a data loader's worker comes in that worker's traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if lacks_memory(error):
        return ("the GPU has too little memory: set MODEL.TEXT_CHUNK 64, or a smaller "
                "DATALOADER.TRAIN_X.BATCH_SIZE or DATALOADER.TEST.BATCH_SIZE (of predict.py a smaller --batch)")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full{f', {error.filename} could not be written' if error.filename else ''}: free space"
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if len(lines) > 1 and lines[0].startswith("Caught "):
        return lines[-1].split(": ", 1)[-1]
    return " ".join(line.strip() for line in lines)
