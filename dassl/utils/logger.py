import os
import sys

from common.files import mkdir_if_missing


class Logger:
    """Replaces ``sys.stdout``: it prints, and appends the same text to a file, line by line."""

    def __init__(self, fpath):
        mkdir_if_missing(os.path.dirname(fpath))
        self.console = sys.stdout
        # buffering=1 flushes after each line, so that the log of a killed run is complete.
        self.file = open(fpath, "a", buffering=1, encoding="utf-8")
        sys.stdout = self

    def write(self, message):
        self.console.write(message)
        self.file.write(message)
        return len(message)

    def flush(self):
        self.console.flush()
        self.file.flush()

    def close(self):
        """Give ``sys.stdout`` back to what it was and close the file."""
        if sys.stdout is self:
            sys.stdout = self.console
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def __getattr__(self, name):
        # isatty, encoding, fileno ... are the console's. The guard is for copies made without __init__.
        if name in ("console", "file"):
            raise AttributeError(name)
        return getattr(self.console, name)


def setup_logger(output=None):
    """Print to the screen and to a log file from now on; stderr is left alone.

    Unlike upstream, a log that exists is appended to, so that a resumed run keeps one log. A second call
    replaces the first one's log.

    Args:
        output: folder (for its ``log.txt``), or a file name ending in .txt or .log; None: do nothing.

    Returns:
        The `Logger` (its ``close()`` restores ``sys.stdout``), or None.
    """
    if output is None:
        return None
    if isinstance(sys.stdout, Logger):
        sys.stdout.close()
    return Logger(output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt"))
