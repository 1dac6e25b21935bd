"""What all sections of params.yaml share: unknown keys and silent conversions are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

BASE_FOLDER = Path("models/base")  # models, tokenizers and runs of others; a dependency of the stages that read it


class Section(BaseModel):
    """Base of all sections: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_silent_conversion(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        wanted = {annotation, *(get_args(kind)[0] if get_args(kind) else kind for kind in get_args(annotation))}
        if wanted & {int, float} and isinstance(value, bool | str):
            raise ValueError(f"a number is wanted, without quotes; found {value!r}")
        if annotation is str and not isinstance(value, str):
            raise ValueError(f"a text is wanted; put quotes around {value!r}")
        if annotation is bool and not isinstance(value, bool):
            raise ValueError(f"true or false is wanted; found {value!r}")
        return value


def _in_base_folder(path: str) -> str:
    if path and (not Path(path).is_relative_to(BASE_FOLDER) or ".." in Path(path).parts or Path(path) == BASE_FOLDER):
        raise ValueError(f"only what lies below {BASE_FOLDER} is a dependency of the pipeline; put it there")
    return path


Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
BasePath = Annotated[str, AfterValidator(_in_base_folder)]
