"""Any ``nn.Module`` that a function in a Python file makes: ``py:FILE.py:FUNCTION``, which runs only where that is allowed."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import paths
from core.config import ModelConfig
from core.error_text import first_line
from core.errors import Refusal
from core.messages.reason import Reason
from core.models import loading
from core.models.base import Listing, LoadedModel, ModelFacts, sources
from core.progress import Progress
from core.surroundings import kept

if TYPE_CHECKING:
    import torch


def split_spec(rest: str) -> tuple[Path, str]:
    """File and function of ``FILE.py:FUNCTION``; ``Refusal`` if it is written otherwise."""
    file, colon, function = rest.rpartition(":")
    if not colon or not function.isidentifier():
        raise Refusal(Reason("models.not-a-python-spec", rest=paths.shown(rest)))
    return paths.typed(file), function


def check(rest: str, config: ModelConfig) -> tuple[Path, str]:
    """File and function, looked at without running anything; ``Refusal`` if it is not there, not Python, or not trusted."""
    file, function = split_spec(rest)
    if not file.is_file():
        raise Refusal(Reason("models.no-python-file", file=str(file)))
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise Refusal(Reason("models.python-invalid", name=file.name, lineno=error.lineno, msg=error.msg)) from error
    except (ValueError, OSError) as error:
        raise Refusal(Reason("models.python-unreadable", file=str(file), problem=str(error))) from error
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assigned = {name.id for node in tree.body for name in ast.walk(node) if isinstance(name, ast.Name)}
    imported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    if function not in {*names, *assigned, *imported}:
        there = Reason("models.file-has", names=tuple(names[:6])) if names else Reason("models.file-defines-none")
        raise Refusal(Reason("models.no-function", name=file.name, function=function, there=there))
    if not config.trust_remote_code:
        raise Refusal(Reason("models.is-python-code", name=file.name))
    return file, function


@contextmanager
def explained(file: Path, what: Reason) -> Iterator[None]:
    """Whatever the user's code raises becomes one sentence with the line of their file that it came from."""
    try:
        yield
    except Refusal:
        raise
    except (Exception, SystemExit) as error:  # it is any code at all
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
        where: Reason | str = Reason("models.in-line", line=lines[-1]) if lines else ""
        message = first_line(error, "no message").rstrip(".;:")[:200]
        raise Refusal(
            Reason("models.python-failed", name=file.name, where=where, what=what, model=type(error).__name__, message=message)
        ) from error


def call(file: Path, function: str) -> Any:
    """What the function of that file returns. The file's folder can be imported from while it runs."""
    name = f"tickscope_entry_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look there
    sys.path.insert(0, str(file.parent))
    try:
        with explained(file, Reason("models.while-run")):
            spec.loader.exec_module(module)
        made = getattr(module, function, None)
        if not callable(made):
            raise Refusal(Reason("models.not-a-function", function=function, name=file.name))
        with explained(file, Reason("models.in-function", function=function)):
            return made()
    finally:
        sys.path.remove(str(file.parent))


def split_result(result: Any, file: Path, function: str) -> tuple[torch.nn.Module, Mapping[str, Any] | None]:
    """The module and its example inputs by the names of its forward; ``Refusal`` if the function returned something else."""
    import torch

    example = None
    if isinstance(result, tuple) and len(result) == 2:
        result, example = result
    if not isinstance(result, torch.nn.Module):
        raise Refusal(
            Reason(
                "models.function-returned-no-module", function=function, name=file.name, what=_article(type(result).__name__)
            )
        )
    if example is None:
        return result, None
    if isinstance(example, Mapping):
        return result, {str(name): value for name, value in example.items()}
    values = tuple(example) if isinstance(example, tuple | list) else (example,)
    return result, _by_name(result, values, file)


def _by_name(module: torch.nn.Module, values: tuple[Any, ...], file: Path) -> dict[str, Any]:
    """Positional example inputs by the names of the module's ``forward``."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    parameters = inspect.signature(module.forward).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    if len(values) > len(names):
        raise Refusal(
            Reason("models.inputs-and-forward-differ", name=file.name, values_count=len(values), names_count=len(names))
        )
    return dict(zip(names, values, strict=False))


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


@sources.register
class PythonEntry:
    """A module of one's own, with inputs of one's own."""

    id = "py"
    title = "Python function"
    hint = "FILE.py:FUNCTION that returns an nn.Module, or (module, example inputs)"

    def listed(self) -> list[Listing]:
        """None: functions are found by their owner."""
        return []

    def describe(self, config: ModelConfig, rest: str) -> ModelFacts:
        """What can be told without running the file."""
        file, function = check(rest, config)
        return ModelFacts(
            spec=config.spec,
            name=f"{function} of {file.name}",
            architecture=function,
            task="module",
            parameters=None,
            layers=None,
            dtype=config.dtype,
            weight_bytes=None,
            file_bytes=None,
            context_length=None,
            has_tokenizer=False,
            stored_as="Python code",
        )

    def load(self, config: ModelConfig, rest: str, device: str, progress: Progress) -> LoadedModel:
        """Run the function with torch's random numbers seeded; its module is cast to the dtype, like any other model."""
        facts = self.describe(config, rest)
        file, function = split_spec(rest)
        file = file.resolve()
        progress.report(loading.IMPORTING)
        import torch

        watch = loading.Stopwatch()
        progress.report(Reason("models.running-file", name=file.name))
        with kept() as changes, torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            module, example = split_result(call(file, function), file, function)
        facts = dataclasses.replace(facts, notes=changes.sentences(facts.name))
        progress.check()
        dtype = getattr(torch, config.dtype)
        with explained(file, Reason("models.while-cast", dtype=config.dtype)):
            module = module.to(device, dtype)
        loaded = loading.finish(module, None, config, facts, watch)
        loaded.example = None if example is None else {name: _cast(value, device, dtype) for name, value in example.items()}
        return loaded


def _cast(value: Any, device: str, dtype: torch.dtype) -> Any:
    """Tensors go where the module went; whole numbers stay such."""
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)
