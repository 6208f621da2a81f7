"""In what two configs differ, field by field."""

import dataclasses
from typing import Any


def differences(old: Any, new: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted field below `where`, old and new value of all that differs between two configs."""
    if type(old) is not type(new):
        names = [type(c).__name__ if dataclasses.is_dataclass(c) else c for c in (old, new)]
        return [(where or "the kind of run", *names)]
    if isinstance(old, tuple) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{where}.{i}")]
    if not dataclasses.is_dataclass(old):
        return [] if old == new else [(where, old, new)]
    found = []
    for field in dataclasses.fields(old):
        inner = f"{where}.{field.name}" if where else field.name
        found += differences(getattr(old, field.name), getattr(new, field.name), inner)
    return found
