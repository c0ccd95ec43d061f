"""Offload: the weights of chosen blocks lie on the disk (or in the main memory of an accelerator) until their block runs.

The hook is accelerate's; what it calls is ours: a module named ``weights`` inside each of the blocks, whose forward loads them.
So the layer clock sees the loading as a layer of its own, of the stage *transfer*, and not as a slow matrix product. For the
same reason the weights are read into memory whole: mapped files would be read page by page inside the products.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from core import paths, torch_private
from core.errors import Refusal
from core.folders import cache_folder
from core.messages.reason import Reason, worded
from core.model_parts.blocks import find_blocks, ranges
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_because, passes
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject
from core.private_folders import is_alive, make_private, process_mark
from profilers.forward_patch import remember_forward
from profilers.torch_private import children_of

if TYPE_CHECKING:
    import torch

DISK, CPU = "disk", "cpu"
ALIGNMENT = 64
"""Weights begin at multiples of so many bytes in their file, as the kernels want them in memory."""

SPARE = 1.05
"""Free space wanted on the disk, as a multiple of the weights."""

Load = Callable[[], dict[str, Any]]
"""Gives a block's weights by name, each time anew."""

_SHARE = re.compile(r"(\d{1,3})%")
_NUMBERS = re.compile(r"\d+(-\d+)?([\s,+]+\d+(-\d+)?)*")


@dataclass(frozen=True)
class OffloadOptions:
    """Which weights, and where to."""

    blocks: str = field(
        default="50%",
        metadata={
            "label": "Blocks to offload",
            "help": "A share such as 50% (the last blocks), or block numbers from 0 such as 8-15+20",
        },
    )
    where: str = field(
        default=DISK,
        metadata={
            "label": "Where to",
            "help": "disk, or cpu: the main memory of a model that runs on an accelerator",
            "choices": (DISK, CPU),
        },
    )
    past_cache: bool = field(
        default=True,
        metadata={
            "label": "Read the disk each time",
            "help": "Off: the operating system may keep the file in free memory, which is faster and takes that memory",
        },
    )
    folder: str = field(
        default="",
        metadata={"label": "Folder", "help": "Where the files lie while the pass is on; empty: Tickscope's own cache folder"},
    )

    def __post_init__(self) -> None:
        share = _SHARE.fullmatch(self.blocks)
        if share is None and _NUMBERS.fullmatch(self.blocks) is None:
            words = "blocks is {blocks!r}; give a share such as 50% or block numbers such as 8-15+20"
            raise ValueError(worded("pass.offload.blocks", words, blocks=self.blocks))


@passes.register
class Offload(Pass):
    """Lets a model run that does not fit, at the price of loading its weights for every token."""

    id = "offload"
    title = "Offload"
    summary = "Weights of some blocks stay on the disk until they are needed: less memory, slower"
    phase = Phase.PLACE
    options: ClassVar[type | None] = OffloadOptions
    changes_weights = True
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (
        Exclusion(frozenset({Group.COMPILES, Group.QUANTIZES}), Reason("passes.moves-plain-weights")),
    )
    unpredictable: ClassVar[Reason | None] = none_because(Reason("passes.how-fast-weights-come"))

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task == "module":
            return Reason("passes.blocks-of-transformers")
        return None

    def apply(self, subject: Subject, options: OffloadOptions) -> PassReport:
        model = subject.model
        _, blocks = find_blocks(model)
        chosen = chosen_blocks(options.blocks, len(blocks))
        device = next(model.parameters()).device
        if options.where == CPU and device.type == "cpu":
            raise Refusal(Reason("passes.weights-are-on-cpu"))
        weights = {number: _own_weights(model, blocks[number]) for number in chosen}
        total = sum(tensor.nbytes for held in weights.values() for tensor in held.values())
        if total == 0:
            raise Refusal(Reason("passes.nothing-to-offload"))
        store = _Disk(options, total, subject) if options.where == DISK else _Memory()
        for number in chosen:
            subject.progress.check()
            _offload(subject, blocks[number], weights[number], store.put(number, weights[number]))
        largest = max(sum(tensor.nbytes for tensor in held.values()) for held in weights.values())
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            len(chosen),
            worded(
                "pass.offload.done",
                "blocks {blocks} of {count} → {where}",
                blocks=ranges(chosen),
                count=len(blocks),
                where=options.where,
            ),
            notes=_notes(options, total, largest),
            prediction=self.unpredictable,
        )


def chosen_blocks(text: str, count: int) -> list[int]:
    """The block numbers that ``text`` names, of ``count`` blocks, sorted; a share means the last ones.

    Raises:
        Refusal: a number is out of range, or a share of nothing.
    """
    share = _SHARE.fullmatch(text)
    if share is not None:
        wanted = min(count, round(count * int(share.group(1)) / 100))
        if wanted == 0:
            raise Refusal(Reason("passes.share-of-no-block", text=text, count=count))
        return list(range(count - wanted, count))
    found: set[int] = set()
    for part in re.split(r"[\s,+]+", text):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high or high >= count:
            raise Refusal(Reason("passes.no-such-blocks-to-offload", part=part, most=count - 1))
        found.update(range(low, high + 1))
    return sorted(found)


def _own_weights(model: torch.nn.Module, block: torch.nn.Module) -> dict[str, Any]:
    """The block's parameters by name, but for those that others share with it, which must stay."""
    holders = Counter(
        id(held) for module in model.modules() for held in torch_private.own_parameters(module).values() if held is not None
    )
    return {name: parameter for name, parameter in block.named_parameters() if holders[id(parameter)] == 1}


ON_DISK = "{total_bytes:size} of weights are on the disk; at most one block's ({largest_bytes:size}) is loaded at a time."
IN_MEMORY = (
    "{total_bytes:size} of weights are in the CPU's memory; at most one block's ({largest_bytes:size}) is loaded at a time."
)


def _notes(options: OffloadOptions, total: int, largest: int) -> tuple[Reason, ...]:
    told = {"total_bytes": total, "largest_bytes": largest}
    if options.where == DISK:
        notes = [worded("pass.offload.on-disk", ON_DISK, **told)]
    else:
        notes = [worded("pass.offload.in-memory", IN_MEMORY, **told)]
    if options.where == CPU:
        notes.append(worded("pass.offload.unverified", "Not verified on hardware by us."))
    elif not options.past_cache:
        notes.append(
            worded(
                "pass.offload.cached",
                "The operating system may keep the files in free memory, so that the disk is hardly read.",
            )
        )
    elif not hasattr(os, "posix_fadvise"):
        notes.append(
            worded(
                "pass.offload.not-forgotten",
                "This operating system cannot be told to forget a file, so it may come from memory and not from the disk.",
            )
        )
    return tuple(notes)


# -- on a block -----------------------------------------------------------------------------------------------------------


def _offload(subject: Subject, block: torch.nn.Module, held: dict[str, Any], load: Load) -> None:
    """Let the block's weights go and load them whenever it runs."""
    from accelerate.hooks import add_hook_to_module, remove_hook_from_module

    transfer_class, hook_class = _classes()
    restore_forward = remember_forward(block)
    block.add_module("weights", transfer_class(held, load).train(block.training))
    _let_go(held)
    add_hook_to_module(block, hook_class(held))

    def undo() -> None:
        remove_hook_from_module(block)  # leaves a forward on the instance
        restore_forward()
        children_of(block).pop("weights", None)

    subject.undo.callback(undo)


def _let_go(held: dict[str, Any]) -> None:
    """Keep shape, dtype and device of the weights, and four bytes of each."""
    import torch

    for parameter in held.values():
        parameter.data = torch.zeros((), dtype=parameter.dtype, device=parameter.device).expand(parameter.shape)


@lru_cache(maxsize=1)
def _classes() -> tuple[Any, Any]:
    """The module that loads and the hook that calls it, made when torch is there."""
    import torch
    from accelerate.hooks import ModelHook

    class Transfer(torch.nn.Module):
        """Loads a block's weights; a module so that the layer clock times it."""

        def __init__(self, held: dict[str, Any], load: Load) -> None:
            super().__init__()
            self.held, self.load = held, load  # in a dict: the weights stay the block's and not this module's

        def forward(self) -> None:
            for name, tensor in self.load().items():
                parameter = self.held[name]
                parameter.data = tensor.to(parameter.device)

    class Loading(ModelHook):
        """Loads before the block's forward and lets go after it."""

        def __init__(self, held: dict[str, Any]) -> None:
            self.held = held

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            module.weights()
            return args, kwargs

        def post_forward(self, module: Any, output: Any) -> Any:
            _let_go(self.held)
            return output

    return Transfer, Loading


# -- where the weights lie ------------------------------------------------------------------------------------------------


class _Memory:
    """The CPU's memory, for models on an accelerator."""

    def put(self, number: int, held: dict[str, Any]) -> Load:
        """Keep a copy; returns what gives it."""
        kept = {name: parameter.detach().to("cpu", copy=True) for name, parameter in held.items()}
        return lambda: kept


class _Disk:
    """A folder with one file per block, gone when the pass is undone or the process ends.

    Written and read as plain bytes: a mapped file on a full disk ends the process instead of raising.
    """

    def __init__(self, options: OffloadOptions, total: int, subject: Subject) -> None:
        above = paths.typed(options.folder) if options.folder else cache_folder() / "offload"
        self._past_cache = options.past_cache and hasattr(os, "posix_fadvise")
        try:
            make_private(above)
            free = shutil.disk_usage(above).free
            if free < total * SPARE:
                raise Refusal(Reason("passes.no-room-to-offload", total_bytes=total, above=str(above), free_bytes=free))
            _remove_leftovers(above)
            self._folder = tempfile.TemporaryDirectory(prefix=f"{process_mark()}-", dir=above, ignore_cleanup_errors=True)
        except OSError as error:
            raise _unwritable(above, error) from error
        subject.undo.callback(self._folder.cleanup)

    def put(self, number: int, held: dict[str, Any]) -> Load:
        """Write the weights; returns what reads them."""
        import torch

        file = Path(self._folder.name) / f"{number}.weights"
        places: dict[str, tuple[int, int, torch.dtype, torch.Size]] = {}
        try:
            with file.open("wb") as writing:
                for name, parameter in held.items():
                    start = writing.seek(-(-writing.tell() // ALIGNMENT) * ALIGNMENT)
                    places[name] = (start, start + parameter.nbytes, parameter.dtype, parameter.shape)
                    plain = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8)
                    writing.write(memoryview(plain.numpy()))
                length = writing.tell()
                writing.flush()
                os.fsync(writing.fileno())  # what is not on the disk yet cannot be forgotten
        except OSError as error:
            raise _unwritable(file.parent, error) from error

        def read() -> dict[str, torch.Tensor]:
            whole = self._read(file, length)
            return {name: whole[start:end].view(dtype).view(shape) for name, (start, end, dtype, shape) in places.items()}

        return read

    def _read(self, file: Path, length: int) -> torch.Tensor:
        """All of the file, in memory of its own."""
        import torch

        whole = torch.empty(length, dtype=torch.uint8)
        left = memoryview(whole.numpy())
        try:
            with file.open("rb", buffering=0) as reading:
                while len(left):
                    count = reading.readinto(left)
                    if not count:
                        raise OSError("the file is shorter than it was")
                    left = left[count:]
                if self._past_cache:
                    os.posix_fadvise(reading.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            reason = error.strerror or error
            raise Refusal(Reason("passes.offloaded-unreadable", file=str(file), reason=str(reason))) from error
        return whole


def _unwritable(folder: Path, error: OSError) -> Refusal:
    return Refusal(Reason("passes.offload-not-kept", folder=str(folder), problem=str(error.strerror or error)))


def _remove_leftovers(above: Path) -> None:
    """Folders of processes that were killed."""
    for left in above.glob("*-*"):
        parts = left.name.split("-")
        if not is_alive("-".join(parts[:2]) if parts[1].isdigit() else parts[0]):  # older versions wrote the number alone
            shutil.rmtree(left, ignore_errors=True)
