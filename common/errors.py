"""Errors that a user can mend. Programs end with their message alone; any other error is the program's own."""


class UserError(ValueError):
    """What is wrong, where (file, key, value) and what to do, in one sentence."""


class MissingFile(FileNotFoundError, UserError):
    """A file or folder that a user has to provide is not there."""


class NotFinite(FloatingPointError, UserError):
    """A number that must be finite is infinite or NaN."""
