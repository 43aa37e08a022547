"""Config keys: each declares its default, its meaning and the values that it accepts."""

import functools
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from yacs.config import CfgNode as CN

Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Key:
    """A config key.

    Attributes:
        default: its value unless it is set.
        meaning: a line that explains it.
        accepts: a type for pydantic, such as `Count`, `bool`, `Literal["a", "b"]` or `tuple[float, float]`.
    """

    default: object
    meaning: str
    accepts: object

    def check(self, value):
        """Return `value` in the type of this key: 0 and 1 as a switch, 1 as 1.0, a list like the default.

        Raises:
            ValueError: the key does not accept it; the message says what it accepts, as "must be ...".
        """
        if self.accepts is bool and type(value) is int and value in (0, 1):
            value = bool(value)
        value = tuple(value) if isinstance(value, list) else value
        try:
            value = _adapter(self.accepts).validate_python(value)
        except ValidationError as error:
            # the last branch of a union is the most general
            raise ValueError(in_words(error.errors()[-1])) from None
        return list(value) if isinstance(value, tuple) and isinstance(self.default, list) else value

    def describe(self):
        """Say in words which values it accepts."""
        return _describe(_adapter(self.accepts).json_schema())


def in_words(error):
    """Turn one of pydantic's errors into "must be ..."."""
    text = {"missing": "must have more values", "too_short": "must have more values",
            "too_long": "must have fewer values",
            "model_type": "must be `key: value` lines"}.get(error["type"], error["msg"])
    for old, new in (("valid integer", "whole number"), ("a valid ", "a "), ("Input should", "must"),
                     ("String should", "must"), ("Value error, ", "")):
        text = text.replace(old, new)
    return text


def _describe(schema):
    """Describe in words a JSON schema of the few kinds that keys have."""
    if "anyOf" in schema:
        return " or ".join(map(_describe, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema["type"] == "array":
        return (", ".join(map(_describe, schema["prefixItems"])) if "prefixItems" in schema
                else f"list of: {_describe(schema['items'])}")
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "True, False"}[schema["type"]]
    bounds = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    return " ".join([kind, *(f"{word} {schema[bound]:.10g}" for bound, word in bounds if bound in schema)])


@functools.cache
def _adapter(accepts):
    return TypeAdapter(accepts, config=ConfigDict(strict=True, allow_inf_nan=False))


def build_cfg(keys):
    """Make a mutable yacs node with the defaults of `keys` ({"A.B": `Key`})."""
    cfg = CN()
    for name, key in keys.items():
        add_key(cfg, name, key)
    return cfg


def add_key(cfg, name, key):
    """Add a key with its default to a node, and make missing nodes above it."""
    *parents, last = name.split(".")
    for parent in parents:
        cfg = cfg.setdefault(parent, CN())
    cfg[last] = list(key.default) if isinstance(key.default, list) else key.default
