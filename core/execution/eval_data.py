"""Material: what quality is measured on, the text that ships or the user's, and the user's labelled examples."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import resources
from core import paths
from core.config import QualityConfig
from core.errors import Refusal
from core.execution.workload import text_config
from core.messages.reason import Reason
from core.models.base import TASKS, LoadedModel
from core.models.json_file import decoded

if TYPE_CHECKING:
    import torch

SHIPPED = "shipped text"
SHIPPED_CODE = "shipped code"
RANDOM = "random tokens"

MOST_CHARACTERS = 1_000_000
"""So much of a user's text is read: more than any number of tokens that is asked for in earnest."""

MOST_EXAMPLES = 2_000
"""So many labelled examples are asked for: accuracy is then known to about one point in a hundred."""

LEAST_TOKENS = 17
"""A window of 16 tokens, of which the last 8 are scored, and one more that the last of them should have foretold."""

_LONGEST_LABEL = 200
"""Characters of a label that are read."""

_SENTENCE_END = re.compile(r"(?<=[.!?。!?])[\"”“»」]?\s+|\n+|(?<=[。!?」])")
_MADE_UP = {"image": "made-up images", "image-text": "a made-up image and shipped text", "speech": "made-up sound"}
_CLASSIFIERS = ("classification", "image-classification")


@dataclass(frozen=True)
class Labelled:
    """One example: a text or the path of an image, and the class it belongs to, as the file writes it."""

    label: str
    text: str = ""
    image: str = ""


@dataclass(frozen=True)
class EvalData:
    """What to measure on. ``name`` is "shipped text" or that of the user's file; ``tokens`` are read of it at most."""

    name: str
    passages: tuple[str, ...]
    tokens: int
    labelled: tuple[Labelled, ...] = ()
    labels_name: str = ""
    labels_left: int = 0  # examples of the file beyond ``MOST_EXAMPLES``
    second_name: str = ""  # a text of another kind, on which less is read; "": none
    second_passages: tuple[str, ...] = ()
    note: Reason | None = None  # why this is not the text that was asked for

    @property
    def second(self) -> EvalData | None:
        """The second text as a material of its own."""
        if not self.second_passages:
            return None
        return EvalData(self.second_name, self.second_passages, max(LEAST_TOKENS, self.tokens // 2))

    def sentences(self, most: int) -> list[str]:
        """Sentences from everywhere in the text, at most so many; short scraps and lines of code are left out."""
        pieces = [piece.strip() for passage in self.passages for piece in _SENTENCE_END.split(passage) if piece]
        fit = [piece for piece in pieces if 12 <= len(piece) <= 400] or [passage[:400] for passage in self.passages]
        return [fit[place] for place in spread_out(len(fit), most)]


def read_material(config: QualityConfig, fitted_to: Iterable[str] = ()) -> EvalData:
    """What ``config`` names, read. Needs no model.

    Args:
        config: which text, which examples, how much of them.
        fitted_to: paths of texts that passes are fitted to (healed on, say). Such a text is not judged on: the shipped one is
            taken instead, and ``note`` says so.

    Raises:
        Refusal: a file is missing, empty or of another kind.
    """
    labelled: list[Labelled] = []
    if config.labels is not None:
        labelled = list(_labelled(paths.typed(config.labels)))
    labels_name = Path(config.labels).name if config.labels is not None else ""
    left = max(0, len(labelled) - MOST_EXAMPLES)
    found = EvalData(
        SHIPPED,
        tuple(resources.passages()),
        config.tokens,
        tuple(labelled[:MOST_EXAMPLES]),
        labels_name,
        left,
        SHIPPED_CODE,
        tuple(resources.passages("code")),
    )
    if config.text is None:
        return found
    path = paths.typed(config.text)
    text = _text_of(path, "text")
    if any(_same_text(text, _text_of(paths.typed(other), "text")) for other in fitted_to):
        note = Reason("execution.judged-on-shipped", name=path.name, shipped=SHIPPED)
        return replace(found, note=note)
    passages = (text[:MOST_CHARACTERS],)
    return replace(found, name=path.name, passages=passages, second_name=SHIPPED, second_passages=found.passages)


def _same_text(one: str, other: str) -> bool:
    """Whether one text is the other or a part of it, however its lines are broken."""
    one, other = (" ".join(text.split()) for text in (one, other))
    return one in other or other in one


def check_material(material: EvalData, loaded: LoadedModel) -> None:
    """``Refusal`` where this model cannot be measured on it: too short a text, or labels that it does not know."""
    if material.labelled:
        if loaded.facts.task not in _CLASSIFIERS:
            kind = TASKS[loaded.facts.task].title.lower()
            raise Refusal(Reason("execution.labels-are-for-classifiers", name=loaded.facts.name, kind=kind))
        wanted = "image" if loaded.facts.task == "image-classification" else "text"
        for number, one in enumerate(material.labelled, 1):
            if not getattr(one, wanted):
                raise Refusal(Reason("execution.example-lacks", number=number, labels_name=material.labels_name, wanted=wanted))
            class_of(one, loaded)
    if loaded.facts.task == "text-generation" and loaded.tokenizer is not None and material.name != SHIPPED:
        found = len(token_ids(loaded, material))
        if found < LEAST_TOKENS:
            raise Refusal(
                Reason("execution.text-too-short-for-quality", name=material.name, found=found, least_tokens=LEAST_TOKENS)
            )


def token_ids(loaded: LoadedModel, material: EvalData) -> list[int]:
    """The text as token ids without special tokens; for a model without tokenizer as many random ones, always the same."""
    import torch

    ending = _end_tokens(loaded.model)
    if loaded.tokenizer is None:
        vocabulary = int(getattr(text_config(loaded.model), "vocab_size", 0)) or 1000
        generator = torch.Generator().manual_seed(0)
        drawn: list[int] = torch.randint(0, vocabulary, (material.tokens + LEAST_TOKENS,), generator=generator).tolist()
        return [one if one not in ending else (one + 1) % vocabulary for one in drawn]
    ids = loaded.tokenizer("\n\n".join(material.passages), add_special_tokens=False)["input_ids"]
    return [one for one in ids if one not in ending]  # an end inside the text would end ``generate``


def first_token(loaded: LoadedModel) -> int | None:
    """The token that this model's tokenizer puts before every text, if it does."""
    if loaded.tokenizer is None:
        return None
    begin = getattr(loaded.tokenizer, "bos_token_id", None)
    return begin if begin is not None and loaded.tokenizer("a")["input_ids"][:1] == [begin] else None


def name_of(loaded: LoadedModel, material: EvalData) -> str:
    """What it was measured on, for people."""
    modality = TASKS[loaded.facts.task].modality
    if modality == "text":
        return material.name if loaded.tokenizer is not None else RANDOM
    return _MADE_UP.get(modality, "made-up inputs")


def second_of(loaded: LoadedModel, material: EvalData) -> EvalData | None:
    """The second text for this model; None where it reads no text of ours, or so little of it that nothing could be told."""
    second = material.second
    if second is None or loaded.tokenizer is None or TASKS[loaded.facts.task].modality != "text":
        return None
    if loaded.facts.task == "text-generation" and len(token_ids(loaded, second)) < LEAST_TOKENS:
        return None
    return second


def class_of(one: Labelled, loaded: LoadedModel) -> int:
    """Which output of the classifier an example's label means, by its name or its number; ``Refusal`` if none."""
    names = {str(name): int(number) for name, number in (getattr(loaded.model.config, "label2id", None) or {}).items()}
    if one.label in names:
        return names[one.label]
    if (
        one.label.isdecimal()
        and len(one.label) < 10
        and int(one.label) < max(len(names), int(getattr(loaded.model.config, "num_labels", 0)))
    ):
        return int(one.label)
    known = ", ".join(list(names)[:8])
    raise Refusal(Reason("execution.unknown-label", label=one.label, known=known or "none"))


def spread_out(length: int, most: int) -> list[int]:
    """At most so many of the places 0 … length − 1, evenly spaced, the first always among them."""
    if length <= most:
        return list(range(length))
    return [round(number * (length - 1) / max(1, most - 1)) for number in range(most)]


def _end_tokens(model: torch.nn.Module) -> set[int]:
    ending = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return {ending} if isinstance(ending, int) else set(ending or ())


def _text_of(path: Path, what: str) -> str:
    """The text of a file; ``Refusal`` where there is none that can be read as UTF-8."""
    try:
        text = paths.read_text(path)
    except FileNotFoundError as error:
        raise Refusal(Reason("execution.no-eval-file", what=what, path=str(path))) from error
    except UnicodeDecodeError as error:
        raise Refusal(Reason("execution.not-utf-8", path=str(path))) from error
    except OSError as error:
        raise Refusal(Reason("execution.eval-file-unreadable", what=what, path=str(path), problem=error.strerror)) from error
    if "\0" in text:
        raise Refusal(Reason("execution.not-a-text-file", path=str(path)))
    if not text.strip():
        raise Refusal(Reason("execution.eval-file-empty", what=what, path=str(path)))
    return text


def _labelled(path: Path) -> Iterator[Labelled]:
    text = _text_of(path, "label")
    jsonl = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    found = 0
    for number, row in enumerate(_json_rows(text, path) if jsonl else _csv_rows(text, path), 1):
        label, given = row.get("label"), row.get("text") or row.get("image")
        plain = isinstance(label, str | int) and all(isinstance(row.get(key) or "", str) for key in ("text", "image"))
        if not plain or str(label)[:_LONGEST_LABEL].strip() == "" or not given:
            raise Refusal(Reason("execution.example-incomplete", number=number, name=path.name))
        image = str(row.get("image") or "")
        yield Labelled(
            str(label)[:_LONGEST_LABEL].strip(), str(row.get("text") or ""), str(path.parent / image) if image else ""
        )
        found += 1
    if not found:
        raise Refusal(Reason("execution.table-without-examples", name=path.name))


def _csv_rows(text: str, path: Path) -> Iterator[Mapping[str, Any]]:
    reader = csv.DictReader(text.splitlines(keepends=True))
    try:
        columns = set(reader.fieldnames or ())
    except csv.Error as error:
        raise _no_table(path, error) from error
    if "label" not in columns or not columns & {"text", "image"}:
        raise Refusal(Reason("execution.table-lacks-columns", name=path.name, columns=_few(columns)))
    try:
        yield from reader
    except csv.Error as error:
        raise _no_table(path, error) from error


def _no_table(path: Path, error: csv.Error) -> Refusal:
    return Refusal(Reason("execution.table-unreadable", name=path.name, problem=str(error)))


def _json_rows(text: str, path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = decoded(line)
        except ValueError as error:
            raise Refusal(Reason("execution.line-is-no-json", number=number, name=path.name)) from error
        if not isinstance(row, dict):
            raise Refusal(Reason("execution.line-is-no-json", number=number, name=path.name))
        yield row


def _few(names: Iterable[str]) -> str:
    listed: Sequence[str] = sorted(names)[:6]
    return ", ".join(listed) or "none"
