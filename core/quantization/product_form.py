"""The form of a product: what a quantised layer says about how it multiplies, for whoever counts bytes and operations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProductForm:
    """What ``as_product`` of a layer gives that holds its weight in another form than floating point.

    Attributes:
        form: what the weight is held as, for people: "int8 weights".
        arithmetic: the dtype that is multiplied in.
        direct_rows: up to so many rows the weight is multiplied as it is held (None: always); for more it is first unpacked.
        unpacks_to: the dtype of the unpacked weight; "": it is never unpacked.
        passes: how often the weight is multiplied for one call.
    """

    form: str
    arithmetic: str
    direct_rows: int | None = None
    unpacks_to: str = ""
    passes: int = 1
