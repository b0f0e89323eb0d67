"""What every section of a configuration is, and the kinds of numbers and names in them."""

from pathlib import Path
from re import match
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what both NumPy and torch take
Weight = Annotated[float, Field(ge=0.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _location(value: object) -> Path | str:
    if isinstance(value, Path):
        return value
    if isinstance(value, str):
        return value if match(r"[a-z][a-z0-9+.-]*://", value) else Path(value)
    raise PydanticCustomError("string_type", "Input should be a valid string")


Location = Annotated[Path | str, PlainValidator(_location)]
"""A folder, or an address such as s3://bucket/scores.zarr, which stays text."""


class Section(BaseModel):
    """Frozen; unknown keys, numbers as text and numbers that are not finite are refused; every field is documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
