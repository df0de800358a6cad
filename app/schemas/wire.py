"""What all bodies share, and how problems are told."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Similarity = Annotated[float, Field(ge=-1.001, le=1.001, description="cosine similarity, -1 … 1")]


class WireModel(BaseModel):
    """Base of all bodies that the service sends."""

    model_config = ConfigDict(frozen=True)


class Problem(WireModel):
    """RFC 9457 problem document; every error is one."""

    type: str = Field(description="stable identifier of the kind of problem")
    title: str = Field(description="the kind of problem in a few words")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what was expected, what was found, and the remedy")
    request_id: str = Field(description="also in the header X-Request-ID and in the service's log")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:voucher:problem:unreadable-image",
                "title": "The photo cannot be used",
                "status": 422,
                "detail": "photo 2 is empty; choose the file again",
                "request_id": "0f6c1f2f4d1c4a8d9a53f2f6a8f1c001",
            }
        }
    )
