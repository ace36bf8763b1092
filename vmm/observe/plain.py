"""Plain data for programs: dataclasses, named tuples, words and enumerations as JSON."""

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from hwmodel.arch.word import Word


def to_json(data: Any) -> str:
    """Return one JSON document; a Word tells its value and its bits."""
    return json.dumps(plain(data), indent=1)


def plain(data: Any) -> Any:
    """Reduce to dicts, lists, strings and numbers."""
    if isinstance(data, Word):
        return {"value": int(data), "bits": repr(data)}
    if isinstance(data, Enum):
        return data.name.lower()
    if is_dataclass(data) and not isinstance(data, type):
        return {item.name: plain(getattr(data, item.name)) for item in fields(data)}
    if isinstance(data, tuple) and hasattr(data, "_asdict"):
        return plain(data._asdict())
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(item) for item in data]
    return data
