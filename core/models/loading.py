"""How every source gets a folder's weights into memory: quietly, with progress and cancel, and with errors as sentences."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.util
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from core.config import ModelConfig
from core.error_text import first_line, said
from core.errors import Refusal
from core.messages.reason import Reason, of_text
from core.models import generation, positions
from core.models.base import TASKS, LoadedModel, ModelFacts
from core.models.experts import active_of
from core.models.files import (
    CONTEXT_KEYS,
    UNLIMITED,
    blocks,
    find_weights,
    first_number,
    has_processor,
    has_tokenizer,
    text_part,
)
from core.models.known import classes
from core.models.made_up import text_config_of
from core.progress import Progress

if TYPE_CHECKING:
    import torch

AUTO_CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "embedding": "AutoModel",
    "classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "image-classification": "AutoModelForImageClassification",
    "image-text": "AutoModelForImageTextToText",
    "speech": "AutoModelForSpeechSeq2Seq",
    "speech-ctc": "AutoModelForCTC",
    "audio-classification": "AutoModelForAudioClassification",
    "object-detection": "AutoModelForObjectDetection",
    "depth-estimation": "AutoModelForDepthEstimation",
}

IMPORTING = Reason("models.importing-libraries")
WEIGHTS = Reason("models.loading-weights")
TOKENIZER = Reason("models.loading-tokenizer")
PROCESSOR = Reason("models.loading-processor")

_PROCESSORS = {"image": "AutoImageProcessor", "image-text": "AutoProcessor", "speech": "AutoFeatureExtractor"}
"""What makes inputs, by what a task is given."""


def auto_class(task: str, architecture: str) -> str:
    """The class of transformers through which a model of this task is loaded."""
    # AutoModel gives an encoder-decoder whole where only its encoder was saved.
    if task == "embedding" and architecture in _text_encoders():
        return "AutoModelForTextEncoding"
    if architecture.endswith("WithTeacher"):  # an architecture's second class for a task, which the auto class does not choose
        return architecture
    return AUTO_CLASSES.get(task, architecture)


def _text_encoders() -> set[str]:
    return set(classes("MODEL_FOR_TEXT_ENCODING").values()) - set(classes("MODEL").values())


class Bar:
    """Stands in for a library's progress bar: prints nothing, reports to ``progress``, raises ``Cancelled`` when asked."""

    def __init__(self, progress: Progress, doing: Reason | None, items: Any = None, total: float | None = None) -> None:
        self._progress = progress
        self._doing = doing
        self._items = items
        self._done = 0.0
        self.total = total if total is not None else (len(items) if hasattr(items, "__len__") else None)

    def update(self, amount: float | None = 1) -> None:
        """So much more is done."""
        self._done += amount or 0
        self._progress.report(self._doing, min(1.0, self._done / self.total) if self.total else None)

    def close(self) -> None:
        """Nothing is held."""

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.update(0)
            yield item
            self._done += 1

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stopwatch:
    """Time and resident memory from here on; made when the libraries are imported, so that neither counts those."""

    def __init__(self) -> None:
        gc.collect()
        self.start_ns = time.perf_counter_ns()
        self.rss_before_bytes: int = psutil.Process().memory_info().rss


def import_libraries(progress: Progress, task: str, architecture: str) -> None:
    """Import torch, transformers and the model's class (about 4 s the first time), so that load times do not count that."""
    progress.report(IMPORTING)
    import torch
    import transformers

    assert torch
    with quiet(progress, IMPORTING):
        for name in (auto_class(task, architecture), "AutoTokenizer", architecture):
            getattr(transformers, name, None)  # transformers imports its modules when a name is first asked for


@contextmanager
def quiet(progress: Progress, doing: Reason | None) -> Iterator[None]:
    """Nothing of transformers reaches the terminal; its bars report to ``progress`` as ``doing``. Restored afterwards."""
    from transformers.utils import logging as library_logging

    def make_bar(_factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bar:
        return Bar(progress, doing, args[0] if args else kwargs.get("iterable"), kwargs.get("total"))

    verbosity = library_logging.get_verbosity()
    library_logging.set_verbosity(library_logging.CRITICAL)
    previous = library_logging.set_tqdm_hook(make_bar)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library_logging.set_tqdm_hook(previous)
        library_logging.set_verbosity(verbosity)


@contextmanager
def refusing(name: str, remedy: str = "check that its files belong together") -> Iterator[None]:
    """What the libraries raise about a model becomes one sentence that ends with ``remedy``; memory running out says so."""
    try:
        yield
    except Refusal:
        raise
    except MemoryError as error:
        raise _no_memory(name) from error
    except Exception as error:
        # Configs, weights and a model's own code can raise anything at all: asserts of torch, StopIteration, IndexError.
        if "allocate memory" in said(error) or "out of memory" in said(error):
            raise _no_memory(name) from error
        raise Refusal(Reason("models.cannot-be-loaded", name=name, problem=_first_line(error), remedy=remedy)) from error


def load_checked(
    folder: Path, config: ModelConfig, facts: ModelFacts, device: str, progress: Progress, watch: Stopwatch
) -> LoadedModel:
    """Load a checked model folder onto ``device`` for the task that ``facts`` name.

    Raises:
        Refusal: the files do not make this model, or memory ran out.
        Cancelled: within one tensor's time of being asked.
    """
    import torch
    import transformers

    weights = find_weights(folder, allow_pickle=config.allow_pickle)
    progress.report(WEIGHTS, 0.0)
    with quiet(progress, WEIGHTS), refusing(facts.name):
        model, report = getattr(transformers, auto_class(facts.task, facts.architecture)).from_pretrained(
            folder,
            dtype=getattr(torch, config.dtype),
            device_map=None if device == "cpu" else {"": device},
            use_safetensors=not weights.pickled,
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    refuse_missing(facts.name, model, report)
    if (
        device == "cpu" and weights.stored_as == f"safetensors {config.dtype}" and not facts.packed
    ):  # converted ones are copies already
        _own_weights(model, progress)
    tokenizer = load_tokenizer(folder, config, progress) if has_tokenizer(folder) else None
    loaded = finish(model, tokenizer, config, facts, watch)
    kind = _PROCESSORS.get(TASKS[facts.task].modality)
    if kind is not None and has_processor(folder):
        loaded.processor, loaded.no_processor = load_processor(folder, kind, config, progress)
    return loaded


def refuse_missing(name: str, model: torch.nn.Module, report: Mapping[str, Any]) -> None:
    """``Refusal`` where transformers filled in random weights for some that the files lack, or that have another shape.

    A head that the checkpoint never had (BERT's pooler in a masked-LM checkpoint) is random but harmless; more is not.
    """
    missing = sorted(key for key in report.get("missing_keys", ()) if "pooler" not in key)
    if missing:
        raise Refusal(
            Reason(
                "models.weights-missing",
                name=name,
                missing_count=len(missing),
                model=type(model).__name__,
                missing=missing[0],
            )
        )
    odd = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report.get("mismatched_keys", ()))
    if odd:
        raise Refusal(
            Reason("models.weights-of-another-shape", name=name, odd_count=len(odd), model=type(model).__name__, odd=odd[0])
        )


def _own_weights(model: torch.nn.Module, progress: Progress) -> None:
    """Copy weights that are still a mapping of their file into memory of their own, one at a time.

    So the first request does not pay for reading the disk, resident memory is what it says, replacing the file cannot
    crash the process, and weights begin at addresses that vector loads like (in the file they are aligned to 8 bytes only).
    """
    import torch

    with torch.no_grad():
        for tensor in Bar(progress, Reason("models.reading-weights"), [*model.parameters(), *model.buffers()]):
            tensor.data = tensor.data.clone()


def load_tokenizer(folder: Path, config: ModelConfig, progress: Progress) -> Any:
    """The folder's tokenizer; ``Refusal`` if its files are damaged."""
    import transformers

    progress.report(TOKENIZER)
    with quiet(progress, TOKENIZER):
        try:
            return transformers.AutoTokenizer.from_pretrained(
                folder, trust_remote_code=config.trust_remote_code, local_files_only=True
            )
        except Exception as error:  # tokenizers raises bare Exception for a damaged file
            if _wants_sentencepiece(folder):
                raise Refusal(Reason("models.needs-sentencepiece", folder=str(folder))) from error
            raise Refusal(Reason("models.tokenizer-unreadable", folder=str(folder), problem=_first_line(error))) from error


def _wants_sentencepiece(folder: Path) -> bool:
    """Whether the tokenizer is there as a SentencePiece model alone and nothing here can read one.

    transformers takes such a file for one of tiktoken's then, and names that package. A SentencePiece model is a protobuf that
    begins with its first piece (field 1); tiktoken's files are text.
    """
    if importlib.util.find_spec("sentencepiece") is not None or (folder / "tokenizer.json").is_file():
        return False
    for name in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"):
        with contextlib.suppress(OSError), (folder / name).open("rb") as file:
            if file.read(1) == b"\n":
                return True
    return False


def load_processor(folder: Path, kind: str, config: ModelConfig, progress: Progress) -> tuple[Any | None, Reason | None]:
    """The folder's processor, or None and why (a library that it needs is not here); ``Refusal`` if its files are damaged."""
    import transformers

    progress.report(PROCESSOR)
    with quiet(progress, PROCESSOR):
        try:
            return getattr(transformers, kind).from_pretrained(
                folder, trust_remote_code=config.trust_remote_code, local_files_only=True
            ), None
        except ImportError as error:
            return None, of_text(_first_line(error))
        except Exception as error:  # it reads JSON, tokenizers and templates, each with errors of its own
            raise Refusal(Reason("models.processor-unreadable", folder=str(folder), problem=_first_line(error))) from error


def settings_of(model: torch.nn.Module) -> dict[str, Any]:
    """The model's config as plain values by transformers' common names; empty where it has none."""
    config = getattr(model, "config", None)
    return common_names(config) if hasattr(config, "to_dict") else {}


def common_names(config: Any) -> dict[str, Any]:
    """A transformers config as plain values, its text part too, each also under the names that most architectures use."""
    values: dict[str, Any] = config.to_dict()
    text = text_config_of(config)
    parts = [(values, config)] + ([] if text is config else [(values.setdefault("text_config", text.to_dict()), text)])
    for part, owner in parts:
        for name, own in owner.attribute_map.items():
            part.setdefault(name, getattr(owner, own, None))
    return values


def finish(model: torch.nn.Module, tokenizer: Any, config: ModelConfig, facts: ModelFacts, watch: Stopwatch) -> LoadedModel:
    """Make a model ready to run, and its facts those of what is in memory."""
    model.eval()
    model.requires_grad_(False)
    settings = settings_of(model)
    told = first_number(text_part(settings), CONTEXT_KEYS)
    limit = getattr(tokenizer, "model_max_length", None)
    within = limit if isinstance(limit, int) and 0 < limit < UNLIMITED else None
    length, soft = positions.of_model(model, told, within)
    parameters = list(model.parameters())
    notes = generation.settle(model)
    known = dataclasses.replace(
        facts,
        architecture=type(model).__name__,
        parameters=facts.parameters if facts.packed else sum(p.numel() for p in parameters),
        weight_bytes=sum(p.numel() * p.element_size() for p in (*parameters, *(model.buffers() if facts.packed else ()))),
        layers=blocks(settings) or facts.layers,
        context_length=length if told is not None else facts.context_length,
        context_is_soft=soft,
        dtype=config.dtype,
        has_tokenizer=tokenizer is not None,
        active_parameters=active_of(model, text_part(settings)),
        keeps_cache=generation.keeps_cache(model),
        notes=(*facts.notes, *notes),
    )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        facts=known,
        config=config,
        load_ns=time.perf_counter_ns() - watch.start_ns,
        rss_before_bytes=watch.rss_before_bytes,
        rss_after_bytes=psutil.Process().memory_info().rss,
    )


def _no_memory(name: str) -> Refusal:
    return Refusal(Reason("models.memory-ran-out", name=name))


def _first_line(error: BaseException) -> str:
    """The first sentence of a library's message, for our own one."""
    line = first_line(error)
    return line[:200].rstrip(".:; ")
