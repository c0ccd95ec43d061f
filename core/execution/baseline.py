"""Baseline: what a model says before any pass changes it, kept until a run's quality is measured against it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from core.analysis.quality_headline import SECOND
from core.error_text import first_line
from core.errors import Refusal
from core.execution import layer_error, task_outputs, teacher_forcing
from core.execution.eval_data import EvalData, Labelled, class_of, first_token, name_of, second_of, token_ids
from core.execution.failure import what_failed
from core.execution.workload import check_memory, is_out_of_memory, text_config
from core.messages.reason import Reason, of_text
from core.models.base import LoadedModel, ModelFacts
from core.models.stored import stored_quantized
from core.progress import Progress
from core.records.run import Quality, file_is_quantized

if TYPE_CHECKING:
    import torch

MEASURING = Reason("execution.measuring-unoptimized")
LAYERS_ERROR = Reason("execution.layers-error")

SPARE = 1.05
"""Free space wanted for each byte that is to be kept."""

FEW = 4
"""Tokens of the first look at layers, which tells how many there is room for."""


@dataclass(eq=False)
class Baseline:
    """What the unoptimized model said. The tensors are in a temporary file, so that a run's memory is not theirs.

    ``length`` and ``batch`` are those of the workload, for which the decoding path was laid out. ``results`` are quality costs
    already measured against it, by whatever tells the passes apart.
    """

    described: str
    text: str
    task: str
    exact: bool  # in float32, where two ways to the same sum differ by rounding of 1e-7
    length: int
    batch: int
    took_ns: int = 0
    examples: list[task_outputs.Example] = field(default_factory=list)
    windows: teacher_forcing.Windows | None = None
    second_text: str = ""  # a text of another kind beside it; "": none
    second_windows: teacher_forcing.Windows | None = None
    second_examples: list[task_outputs.Example] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)  # greedy ones
    margins: list[list[float]] = field(default_factory=list)  # by which log-probability each was the best
    labelled: list[tuple[Labelled, int]] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)
    notes: list[Reason] = field(default_factory=list)
    results: list[tuple[object, Quality]] = field(default_factory=list)
    layer_positions: int = 0  # tokens of the window on which layers are compared
    _file: IO[bytes] | None = None

    def result(self, passes: object) -> Quality | None:
        """What was measured of the same passes already."""
        return next((quality for known, quality in self.results if known == passes), None)

    def keep(self, tensors: Mapping[str, Any]) -> None:
        """Write the tensors to the file, which has no name: however the process ends, nothing of it is left.

        Raises:
            Refusal: there is no room for it.
        """
        import torch

        folder, needed = tempfile.gettempdir(), sum(tensor.nbytes for tensor in _tensors(tensors))
        no_room = Reason("execution.no-room-for-baseline", needed_bytes=needed, folder=folder)
        try:
            if shutil.disk_usage(folder).free < needed * SPARE:
                raise Refusal(no_room)
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the baseline is
            torch.save(dict(tensors), self._file)
        except (OSError, RuntimeError) as error:  # torch says nothing of the disk
            self.close()
            raise Refusal(no_room) from error

    def read(self) -> dict[str, Any]:
        """The tensors that were kept."""
        import torch

        assert self._file is not None
        self._file.seek(0)
        tensors: dict[str, Any] = torch.load(self._file, weights_only=True)
        return tensors

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _tensors(held: Any) -> Iterator[Any]:
    """All tensors in a structure of mappings and lists."""
    if isinstance(held, Mapping):
        held = held.values()
    elif not isinstance(held, list | tuple):
        if hasattr(held, "nbytes"):
            yield held
        return
    for one in held:
        yield from _tensors(one)


class Tolerate:
    """A part of the measurement that may fail by itself: ``why`` then says how, and what comes after it goes on.

    Whatever a model's or another engine's code raises is meant, which no list of errors could name. A cancel goes through, and
    so does running out of memory, but for the outermost part, which measures the whole.
    """

    def __init__(self, title: Reason | None = None, notes: list[Reason] | None = None) -> None:
        self._title = title
        self._notes = notes
        self.why: Reason | None = None

    def __enter__(self) -> Tolerate:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        no_memory = is_out_of_memory(error)
        if no_memory and self._notes is not None:
            return False
        self.why = Reason("execution.no-memory-while-measured") if no_memory else _why_failed(error)
        if self._notes is not None and self._title is not None:
            self._notes.append(Reason("execution.not-measured", what=self._title, why=self.why))
        return True


def _why_failed(error: Exception) -> Reason:
    """What an error says, as a clause."""
    if isinstance(error, Refusal):
        return Reason("execution.as-clause", sentence=error.reason)
    if error.args and isinstance(error.args[0], Reason):
        return error.args[0]
    if isinstance(error, ValueError) or type(error) is RuntimeError:
        return of_text(first_line(error, "").rstrip("."))
    return what_failed(error)


# -- collecting it --------------------------------------------------------------------------------------------------------


def baseline(loaded: LoadedModel, material: EvalData, room: tuple[int, int], device: str, progress: Progress) -> Baseline:
    """What the model says before any pass, on the text and the labelled examples.

    Args:
        loaded: the model, to which nothing was done.
        material: what it is measured on.
        room: longest sequence and batch of the workload, which prepared caches and compiled steps are made for.
        device: where the model is.
        progress: told how far it is; may cancel between two layers.

    Raises:
        Refusal: there is no memory for it.
    """
    start = time.perf_counter_ns()
    facts = loaded.facts
    found = Baseline(described(facts), name_of(loaded, material), facts.task, facts.dtype == "float32", *room)
    found.notes += [note for note in (material.note, already_quantized(loaded)) if note]
    try:
        with teacher_forcing.interruptible(loaded.model, progress.check):
            tensors = (
                _language(loaded, material, found, progress) if _continues(loaded) else _other(loaded, material, found, device)
            )
            progress.report(MEASURING, 0.8)
            if material.labelled:
                found.labelled = [(one, class_of(one, loaded)) for one in material.labelled]
                found.hits = task_outputs.hits(loaded.model, loaded, found.labelled, device, progress)
                if material.labels_left:
                    found.notes.append(Reason("execution.first-examples", n=len(found.labelled), name=material.labels_name))
            with Tolerate(LAYERS_ERROR, found.notes):
                tensors["layers"] = _layers(loaded.model, found)
        found.keep(tensors)
    except BaseException:
        found.close()
        raise
    found.took_ns = time.perf_counter_ns() - start
    return found


def described(facts: ModelFacts) -> str:
    """What "unoptimized" is: a file with 4-bit weights is no float32 original, whatever it is loaded as."""
    stored = facts.stored_as
    if stored.startswith("random"):
        return f"{facts.dtype}, {stored}"
    return f"{facts.dtype} as loaded from {stored}" if stored and stored != facts.dtype else facts.dtype


def already_quantized(loaded: LoadedModel) -> Reason | None:
    """A sentence where the file itself holds few bits; None where it does not, or nobody can tell."""
    stored = stored_quantized(loaded.facts.stored_as, getattr(loaded.model, "config", None))
    return file_is_quantized(stored) if stored else None


def _continues(loaded: LoadedModel) -> bool:
    return loaded.facts.task == "text-generation"


def _language(loaded: LoadedModel, material: EvalData, found: Baseline, progress: Progress) -> dict[str, Any]:
    model = loaded.model
    vocabulary = int(getattr(text_config(model), "vocab_size", 0)) or 1000
    room = teacher_forcing.room_of(model, loaded.facts.context_length, found.length, found.batch)
    first = first_token(loaded)
    laid = teacher_forcing.windows(token_ids(loaded, material), first, material.tokens, room, vocabulary)
    found.windows = laid
    check_memory(model, 1, laid.bulk.shape[1], laid.bulk.shape[1])
    tensors = _read_text(model, laid, found, progress, 0.0)
    second = second_of(loaded, material)
    if second is not None:
        sizes = (teacher_forcing.SECOND_WINDOW, teacher_forcing.SECOND_DECODED)
        found.second_text = second.name
        found.second_windows = teacher_forcing.windows(token_ids(loaded, second), first, second.tokens, room, vocabulary, sizes)
        read = _read_text(model, found.second_windows, found, progress, 0.4)
        tensors |= {f"{SECOND}{name}": tensor for name, tensor in read.items()}
    if laid.decode is not None:
        progress.report(MEASURING, 0.7)
        _continue_freely(model, laid, found)
    return tensors


def _read_text(
    model: Any, laid: teacher_forcing.Windows, found: Baseline, progress: Progress, begin: float
) -> dict[str, torch.Tensor]:
    """Logits along one text, read in one go ("bulk") and decoded ("decode")."""
    import torch

    bulk = []
    for number, row in enumerate(laid.bulk):
        progress.report(MEASURING, begin + 0.2 * number / len(laid.bulk))
        bulk.append(teacher_forcing.kept(teacher_forcing.bulk_logits(model, row, laid.scored), laid.targets.numel()))
    tensors = {"bulk": torch.stack(bulk)}
    if laid.decode is not None:
        progress.report(MEASURING, begin + 0.2)
        tensors["decode"] = torch.cat(list(_decoded_before(model, laid, found.exact)))
    return tensors


def _decoded_before(model: Any, laid: teacher_forcing.Windows, exact: bool) -> Iterator[torch.Tensor]:
    """Logits [rows, positions, vocabulary] along the windows of the decoding path.

    In float32 a text read in one go gives the same to some 1e-6, in a tenth of the time. In fewer bits the rounding of the two
    ways differs by more than some passes do, so there the unoptimized model decodes too.
    """
    assert laid.decode is not None
    for batch in laid.decode.split(laid.batch):
        if exact:
            for row in batch:
                logits = teacher_forcing.bulk_logits(model, row[:-1], laid.new_tokens - 1)
                yield teacher_forcing.kept(logits, laid.decode.numel())[None]
        else:
            yield teacher_forcing.kept(teacher_forcing.decoded_logits(model, batch, laid.prompt, {}), laid.decode.numel())


def _continue_freely(model: Any, laid: teacher_forcing.Windows, found: Baseline) -> None:
    """The greedy tokens of the unoptimized model, and how clear each choice was."""
    import torch

    prompts = laid.greedy
    assert prompts is not None
    found.tokens = teacher_forcing.greedy(model, prompts, min(teacher_forcing.GREEDY, laid.new_tokens), {})
    whole = torch.cat([prompts, torch.tensor(found.tokens)], dim=1)
    for row in whole:
        logits = teacher_forcing.bulk_logits(model, row[:-1], len(found.tokens[0]))
        best = logits.float().topk(2, dim=-1).values
        found.margins.append((best[:, 0] - best[:, 1]).tolist())


def _other(loaded: LoadedModel, material: EvalData, found: Baseline, device: str) -> dict[str, Any]:
    found.examples, said = _asked(loaded, material, device)
    second = second_of(loaded, material)
    if second is None:
        return said
    found.second_text = second.name
    found.second_examples, more = _asked(loaded, second, device)
    return {**said, **{f"{SECOND}{name}": values for name, values in more.items()}}


def _asked(loaded: LoadedModel, material: EvalData, device: str) -> tuple[list[task_outputs.Example], dict[str, Any]]:
    """The examples of one text, and what the model says to them."""
    model, task, examples = loaded.model, loaded.facts.task, []
    for example in task_outputs.examples(loaded, material, device):
        tokens = task_outputs.written(model, example, {}) if task_outputs.is_encoder_decoder(model) else None
        examples.append(replace(example, written=tokens))
    said = [task_outputs.answer(model, example, task) for example in examples]
    return examples, {
        "kinds": [one.kind for one in said],
        "values": [one.values for one in said],
        "targets": [one.targets for one in said],
    }


def _layers(model: torch.nn.Module, found: Baseline) -> dict[str, torch.Tensor]:
    """Outputs of all layers for the first window or example, of as many positions as there is room for."""
    found.layer_positions = FEW
    few = layer_error.outputs(model, call_of(model, found))
    held = sum(tensor.nbytes for tensor in few.values())
    if found.windows is None:
        return few if held <= layer_error.MOST_BYTES else {}
    found.layer_positions = max(FEW, min(layer_error.POSITIONS, layer_error.MOST_BYTES * FEW // max(1, held)))
    return layer_error.outputs(model, call_of(model, found))


def call_of(model: Any, found: Baseline) -> Callable[[], object]:
    """One call of the model for layer errors: on a part of the first window, or on the first example.

    Logits are wanted of every position: with the last one's alone, head and model would rest on a single position.
    """
    windows = found.windows
    if windows is not None:
        ids = windows.bulk[0][: found.layer_positions]
        return lambda: teacher_forcing.bulk_logits(model, ids, len(ids))
    return lambda: task_outputs.answer(model, found.examples[0], found.task)
