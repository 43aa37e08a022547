"""The log of a run: the lines that it printed, and the error that ended it."""

import io
import sys
import traceback

from common.errors import UserError
from common.program import Stopped, sentence
from dassl.utils import Logger


class RunLog(Logger):
    """Copies what is printed to a file, line by line, from `begin` on.

    Earlier lines are kept until then, so that a refused run does not change the log of the run that is there. An error
    that ends the run is logged: a user's error as its sentence, any other with its traceback.
    """

    def __init__(self, path):
        self.path = path
        self.file = io.StringIO()
        self.begun = False

    def begin(self):
        """Write to the file from now on, after what it holds, so that a resumed run keeps one log."""
        if not self.begun:
            early = self.file.getvalue()
            self.file = open(self.path, "a", buffering=1, encoding="utf-8")  # a killed run loses at most a line
            self.file.write(early)
            self.begun = True

    def only(self, text):
        """Write lines to the file that the console does not show."""
        self.file.write(f"{text}\n")

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
