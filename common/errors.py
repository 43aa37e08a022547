"""Errors that a user can mend. A program ends with their message alone; other errors keep their traceback."""


class UserError(ValueError):
    """Its message says in one sentence what is wrong, where (file, key, value), and what to do."""


class MissingFile(FileNotFoundError, UserError):
    """A file or folder that a user has to provide is not there."""


class NotFinite(FloatingPointError, UserError):
    """A number that must be finite is infinite or NaN."""
