"""AOTInductor as an engine: a model's graph compiled ahead of time into a library, kept on disk, called without Python between.

The weights are not in the library. It is given the model's own, so that they are in memory once, and one library serves every
model of the same structure.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.compiled.key import graph_key
from core.disk_space import is_full, require_to_compile
from core.error_text import first_line
from core.errors import Refusal
from core.folders import cache_folder
from core.machine_cache import draft_of, keep, usable
from core.messages.reason import Reason
from core.runtimes.aot_flat import Outline, flat_inputs, flat_model, outline, output_of, put_back, states_of, unfitting
from core.runtimes.exporting import EXPORT_FAILURES, Sample, quiet

if TYPE_CHECKING:
    import torch

SETTINGS: dict[str, Any] = {"aot_inductor.package_constants_in_so": False, "aot_inductor.precompile_headers": False}
"""For inductor; part of the key under which a library is kept."""

VERSION = 3
"""Raised when a package kept by an older Tickscope must not be used any more."""

LIBRARY, OUTLINE, CONSTANTS = "model.pt2", "outline.json", "constants.pt"
"""The parts of one kept package; the last has what is neither weight nor buffer."""


class AotPackage:
    """An ``Engine`` (see ``core.runtimes.forward_swap``): one compiled library, with a model's weights.

    Args:
        folder: where it is kept.
        model: whose weights it is given; they must stay as they are.
        sample: what was traced.
    """

    def __init__(self, folder: Path, model: torch.nn.Module, sample: Sample) -> None:
        import torch

        self.name = f"AOTInductor {torch.__version__.partition('+')[0]}"
        self._outline = _read(folder / OUTLINE)
        self.wants = frozenset(self._outline.inputs)
        count = len(self._outline.inputs)
        self._blank = [tensor[:, :, :0] for tensor in flat_inputs(sample)[1][count:]]
        with quiet():
            self._call = torch_private.load_package(folder / LIBRARY)
        known = torch.load(folder / CONSTANTS, weights_only=True)
        for named in (model.named_buffers(remove_duplicate=False), model.named_parameters(remove_duplicate=False)):
            known |= {f"model.{name}": tensor.detach() for name, tensor in named}
        self._weights = {name: known[name] for name in self._call.get_constant_fqns()}  # kept alive here: it has no copy
        self._call.load_constants(self._weights, check_full_update=True, user_managed=True)

    def step(self, inputs: Mapping[str, torch.Tensor], cache: Any) -> torch.Tensor:
        """See ``core.runtimes.forward_swap.Engine``."""
        batch = inputs["input_ids"].shape[0]
        blank = [tensor[:1].expand(batch, -1, -1, -1) for tensor in self._blank]
        logits, *states = self._run([*(inputs[name] for name in self._outline.inputs), *states_of(cache, blank)])
        put_back(cache, states)
        found: torch.Tensor = logits
        return found

    def call(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """See ``core.runtimes.forward_swap.Engine``."""
        return output_of(self._outline, self._run([inputs[name] for name in self._outline.inputs]))

    def _run(self, tensors: list[torch.Tensor]) -> Any:
        """``Refusal`` for sizes that the library was not made for: it does not look itself, but at indices."""
        if (why := unfitting(self._outline, tensors)) is not None:
            raise Refusal(Reason("runtimes.other-sizes", name=self.name, why=why))
        try:
            return self._call([tensor.contiguous() for tensor in tensors])  # it takes the strides of the sample for granted
        except RuntimeError as error:
            raise Refusal(Reason("runtimes.could-not-run", name=self.name, problem=_reason(error))) from error


def key_of(model: torch.nn.Module, task: str) -> str:
    """The key of a model's package: one for all models of this structure, task, machine and number of threads."""
    return graph_key(model, SETTINGS, "aot", VERSION, task)


def folder_of(key: str) -> Path:
    """Where the package of this key is kept."""
    return cache_folder() / "aot" / key


def is_kept(key: str) -> bool:
    """Whether an earlier start has made it, and it is still as it was made."""
    return usable(folder_of(key), code=True)


def make(model: torch.nn.Module, sample: Sample, key: str) -> None:
    """Export, compile and keep the model under ``key``; takes half a minute and more.

    Raises:
        Refusal: it cannot be exported or compiled, or there is no room to keep it.
    """
    folder = folder_of(key)
    require_to_compile(folder.parent)
    draft: Path | None = None
    try:
        draft = draft_of(folder)
        _write(model, sample, draft)
        keep(draft, folder)
    except OSError as error:
        raise Refusal(Reason("runtimes.aot-not-kept", parent=str(folder.parent), problem=str(error))) from error
    except EXPORT_FAILURES as error:
        if is_full(error):
            raise Refusal(Reason("runtimes.disk-filled")) from error
        why = _reason(error)
        raise Refusal(Reason("runtimes.aot-cannot-compile", model=type(model).__name__, why=why)) from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _write(model: torch.nn.Module, sample: Sample, into: Path) -> None:
    import torch

    _, tensors, shapes = flat_inputs(sample)
    with torch.no_grad(), quiet(), torch_private.sizes_like_others():
        graph = torch.export.export(flat_model(model, sample), (tensors,), dynamic_shapes=(shapes,), strict=False)
        found = outline(model, sample, graph)
        # Into memory first: what writes torch's archives ends the process where the disk is full.
        library, rest = io.BytesIO(), io.BytesIO()
        torch_private.compile_to_package(graph, library, SETTINGS)
    torch.save({name: value for name, value in graph.constants.items() if isinstance(value, torch.Tensor)}, rest)
    (into / LIBRARY).write_bytes(library.getbuffer())
    (into / CONSTANTS).write_bytes(rest.getbuffer())
    (into / OUTLINE).write_text(json.dumps(asdict(found)), "utf-8")


def _read(path: Path) -> Outline:
    kept = json.loads(path.read_text("utf-8"))
    bounds = tuple(tuple((int(low), int(high)) for low, high in one) for one in kept["bounds"])
    return Outline(tuple(kept["inputs"]), bounds, (kept["made"][0], kept["made"][1]), tuple(kept["parts"]))


def _reason(error: BaseException) -> str:
    """What torch says went wrong, shortened to a clause."""
    line = first_line(error)
    return line.rstrip(".") if len(line) <= 160 else line[:157] + "…"
