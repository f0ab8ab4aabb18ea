"""Ranges of options, as annotations of their types."""

import math
import sys
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

from core.cli import option_name
from core.errors import UserError


@dataclass(frozen=True)
class Range:
    """Range of an option, with both ends; NaN and infinity are in none."""

    text: str
    low: float
    high: float = sys.float_info.max


ABOVE_0 = math.nextafter(0, 1)
BELOW_1 = math.nextafter(1, 0)
Seed = Annotated[int, Range("from 0 to 4294967295", 0, 2**32 - 1)]
PositiveInt = Annotated[int, Range("at least 1", 1)]
NonNegativeInt = Annotated[int, Range("at least 0", 0)]
PositiveFloat = Annotated[float, Range("above 0", ABOVE_0)]
NonNegativeFloat = Annotated[float, Range("at least 0", 0)]
Fraction = Annotated[float, Range("above 0 and below 1", ABOVE_0, BELOW_1)]


def check_ranges(options: Any) -> None:
    """Raise a UserError if an option is outside the `Range` that the dataclass annotates it with."""
    for name, annotation in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        if not isinstance(value, (int, float)):
            continue
        for part in annotation, *get_args(annotation):  # such as PositiveInt | None
            for allowed in getattr(part, "__metadata__", ()):
                if not allowed.low <= value <= allowed.high:
                    raise UserError(f"--{option_name(name)} {value}: must be {allowed.text}")
