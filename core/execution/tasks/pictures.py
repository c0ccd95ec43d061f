"""Images: a file, with every way in which reading it fails as a sentence, or a made-up one of the size that a model wants."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from core import paths
from core.errors import Refusal
from core.messages.reason import Reason

if TYPE_CHECKING:
    import torch

MOST_PIXELS = 100_000_000
"""A larger file is refused before it is unpacked: 100 million pixels take 300 MB, and any model makes them small anyway."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is opened, whatever a file is called. Pillow knows forty more, and gives some to other programs (Ghostscript)."""

USUAL_SIDE = 224


def read_image(path: str) -> Any:
    """The image in a file, as RGB; ``Refusal`` if there is none, or one that cannot be read."""
    from PIL import Image, UnidentifiedImageError

    file = paths.typed(path)
    if not file.exists():
        raise Refusal(Reason("execution.no-image-file", file=str(file)))
    if not file.is_file():
        raise Refusal(Reason("execution.not-an-image-file", file=str(file)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, which are counted here
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise Refusal(Reason("execution.too-many-pixels", name=file.name, width=width, height=height))
                return image.convert("RGB")
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise Refusal(Reason("execution.image-unreadable", name=file.name, kinds=kinds)) from error
    except Image.DecompressionBombError as error:
        raise Refusal(Reason("execution.too-many-pixels-to-unpack", name=file.name)) from error
    except Refusal:
        raise
    except Exception as error:  # Pillow's readers raise anything at all for damaged files
        raise Refusal(Reason("execution.image-damaged", name=file.name, problem=paths.why(error))) from error


def sides(value: Any) -> int | None:
    """One side of a size that configs write as a number, a pair, or a mapping; None where there is none."""
    if isinstance(value, dict):
        value = value.get("height") or value.get("shortest_edge")
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return value if isinstance(value, int) and value > 0 else None


def side_of(config: Any, asked: int | None) -> int:
    """Pixels a side of a made-up image: as asked, or what the model is made for."""
    return asked or sides(getattr(config, "image_size", None)) or USUAL_SIDE


def made_up(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random numbers about as spread as a prepared image's or sound's: the same ones for the same seed."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
