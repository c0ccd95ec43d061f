"""The pristine model once more: loaded beside the changed one for as long as something is compared with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil

from core.errors import Refusal
from core.messages.reason import Reason
from core.models import catalog
from core.models.base import LoadedModel
from core.progress import Progress

if TYPE_CHECKING:
    import torch


def pristine(loaded: LoadedModel, device: str, progress: Progress) -> Callable[[], torch.nn.Module]:
    """A function that loads the same model again, as its source gives it (random weights come from the same seed).

    The function raises ``Refusal`` where a second copy does not fit in memory now; nothing is kept here, so the copy lives
    as long as its caller holds it.
    """
    facts, config = loaded.facts, loaded.config

    def load() -> torch.nn.Module:
        fit = catalog.fit(facts, config.dtype, psutil.virtual_memory().available)
        if not fit.fits and not config.force:
            raise Refusal(Reason("execution.original-does-not-fit", sentence=fit.sentence))
        return catalog.load(config, device, progress).model

    return load
