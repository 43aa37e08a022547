"""Names that people type: which known ones are like an unknown one."""

import difflib
import re

MOST = 3  # names that a message offers


def simplify(name):
    """Return a name in small letters, without the signs between words."""
    return re.sub(r"[-_/\s]", "", name.lower())


def near(name, known):
    """Return the names that a user may have meant by `name`, a list in the order of `known`.

    They are those that differ in case and signs alone; else those that begin with it; else those that end with it; else
    the one that difflib finds most like it, or none.
    """
    plain = {other: simplify(other) for other in known}
    name = simplify(name)
    for fits in (str.__eq__, str.startswith, str.endswith):
        found = [other for other, text in plain.items() if name and fits(text, name)]
        if found:
            return found
    close = difflib.get_close_matches(name, plain.values(), 1)
    return [other for other, text in plain.items() if text in close][:1]


def did_you_mean(names):
    """Ask for the first of `names`, such as `near` finds, to end a message; "" if there is none."""
    return f": did you mean {' or '.join(names[:MOST])}?" if names else ""
