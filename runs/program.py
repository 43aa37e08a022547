"""What every program does around its work."""

import contextlib


@contextlib.contextmanager
def program():
    """Run the body of a program."""
    yield
