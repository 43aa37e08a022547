"""The log of a run: what is printed, and how the run failed."""

import io
import sys
import traceback

from common.errors import UserError
from common.program import Stopped, sentence
from dassl.utils import Logger


class RunLog(Logger):
    """Copies what is printed to a file, line by line, from `begin` on.

    What was printed before is kept until then, so that a run that is refused leaves the log of the run that is there
    alone. An error that passes is logged: a user's as its sentence, another one with its traceback.
    """

    def __init__(self, path):
        self.path = path
        self.file = io.StringIO()
        self.begun = False

    def begin(self):
        """Write to the file from now on; it is appended to, so that a resumed run keeps one log."""
        if not self.begun:
            early = self.file.getvalue()
            self.file = open(self.path, "a", buffering=1, encoding="utf-8")  # buffered by line, for killed runs
            self.file.write(early)
            self.begun = True

    def __enter__(self):
        self.console, sys.stdout = sys.stdout, self
        return self

    def __exit__(self, kind, error, trace):
        sys.stdout = self.console
        if self.begun and error is not None and not isinstance(error, SystemExit):
            if not isinstance(error, (UserError, Stopped, KeyboardInterrupt)):
                traceback.print_exception(kind, error, trace, file=self.file)
            self.file.write(f"{'' if isinstance(error, Stopped) else 'error: '}{sentence(error)}\n")
        self.file.close()
