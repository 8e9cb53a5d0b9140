"""What the groups of settings are made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]

Slices = tuple[Annotated[str, Field(pattern=r"^[^=\s][^=]*(=.*)?$")], ...]
"""Each a key of the requests' metadata, for every value of it, or `key=value` for that one."""

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
ADDRESS = re.compile(r"https?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[1-9]\d{0,4})?(/[\x21-\x7e]*)?")


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
