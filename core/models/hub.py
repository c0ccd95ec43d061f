"""Models of the Hugging Face hub: from the local cache if they are there, else downloaded into it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core import paths
from core.config import ModelConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import Listing, LoadedModel, ModelFacts, sources
from core.models.files import blocks, context_length, read_config
from core.models.folder import describe_folder, load_folder, task_from_config
from core.models.memory import ITEM_BYTES
from core.progress import Progress

_SMALL_FILES = re.compile(r"^[^/]+\.(json|jinja|txt|model|tiktoken)$")
_SAFETENSORS = re.compile(r"^model(-\d+-of-\d+)?\.safetensors$")
_PICKLES = re.compile(r"^pytorch_model(-\d+-of-\d+)?\.bin$")


_NAME = re.compile(r"(?!.*(?:\.\.|--))(\w([\w.\-]*\w)?/)?\w([\w.\-]*\w)?", re.ASCII)
_LONGEST_NAME = 96
"""A repository's name and its characters, by the hub's own rules."""


def split_spec(rest: str) -> tuple[str, str | None]:
    """Repository and revision of ``ORG/NAME[@REVISION]``."""
    repository, _, revision = rest.partition("@")
    if (
        not _NAME.fullmatch(repository)
        or len(repository) > _LONGEST_NAME
        or len(revision) > _LONGEST_NAME
        or not revision.isprintable()
    ):
        raise Refusal(Reason("models.not-a-hub-name", rest=paths.shown(rest)))
    return repository, revision or None


def needed_files(names: Sequence[str], repository: str, config: ModelConfig) -> list[str]:
    """Of a repository's files those that loading needs: config, tokenizer, one kind of weights, its code only if trusted."""
    weights = [name for name in names if _SAFETENSORS.match(name)]
    if not weights:
        pickles = [name for name in names if _PICKLES.match(name)]
        if not pickles:
            has_gguf = any(name.endswith(".gguf") for name in names)
            other = Reason("models.open-its-gguf") if has_gguf else Reason("models.choose-another")
            raise Refusal(Reason("models.hub-without-weights", repository=repository, other=other))
        if not config.allow_pickle:
            raise Refusal(Reason("models.hub-pickled-only", repository=repository))
        weights = pickles
    code = [name for name in names if config.trust_remote_code and name.endswith(".py") and "/" not in name]
    return sorted({*weights, *code, *(name for name in names if _SMALL_FILES.match(name))})


def cached(repository: str, revision: str | None) -> Path | None:
    """The folder of the model in the local cache, whole or not; None if it is not there. No network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=["config.json"]))
    except LocalEntryNotFoundError:
        return None


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Each way the hub can fail as its own sentence."""
    from huggingface_hub import errors

    # What the network library raises; taken from where the hub has it, because its name changed from httpx to httpx2.
    network_error: type[Exception] = vars(errors)["HTTPError"]
    try:
        yield
    except errors.GatedRepoError as error:
        raise Refusal(Reason("models.hub-gated", repository=repository)) from error
    except errors.RepositoryNotFoundError as error:
        raise Refusal(Reason("models.hub-no-model", repository=repository)) from error
    except errors.RevisionNotFoundError as error:
        raise Refusal(Reason("models.no-revision", repository=repository, revision=revision)) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        raise Refusal(Reason("models.hub-error", status=status, repository=repository)) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, network_error) as error:
        if _is_offline():
            raise Refusal(Reason("models.hub-offline", repository=repository)) from error
        raise Refusal(Reason("models.hub-unreachable", repository=repository)) from error
    except OSError as error:
        raise Refusal(
            Reason("models.hub-cache-unwritable", repository=repository, problem=str(error.strerror or error))
        ) from error


def _is_offline() -> bool:
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


def download(repository: str, revision: str | None, config: ModelConfig, progress: Progress) -> Path:
    """Fetch what loading needs and return its folder in the cache. What arrived before a cancel is kept for the next try."""
    import huggingface_hub

    progress.report(Reason("models.asking-hub", repository=repository))
    with _explained(repository, revision):
        info = huggingface_hub.HfApi().model_info(repository, revision=revision)
        names = needed_files([file.rfilename for file in info.siblings or ()], repository, config)
        with _plain_http():
            folder = huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=names, tqdm_class=_bar_class(progress, repository)
            )
    return Path(folder)


@contextmanager
def _plain_http() -> Iterator[None]:
    """Downloads go over plain HTTP, where every chunk passes our bar; hf_xet's threads cannot be stopped from a callback."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _bar_class(progress: Progress, repository: str) -> type:
    """A tqdm that shows nothing, reports the bytes to ``progress`` and raises ``Cancelled`` in the downloading thread."""
    import io

    from tqdm.auto import tqdm

    class SilentBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["file"] = io.StringIO()
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            progress.check()
            self.n += n or 0
            # Of its several bars snapshot_download counts bytes in some and files in another; only bytes say how far it is.
            if self.unit == "B" and self.total:
                progress.report(Reason("models.downloading", repository=repository), min(1.0, self.n / self.total))
            return None

    return SilentBar


@sources.register
class Hub:
    """A model of the Hugging Face hub. What is in the cache is used as it is, so that runs can be repeated."""

    id = "hub"
    title = "Hugging Face hub"
    hint = "ORG/NAME or ORG/NAME@REVISION"

    def listed(self) -> list[Listing]:
        """Models in the local hub cache that have a config."""
        from huggingface_hub import constants

        found = []
        for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
            if any(folder.glob("snapshots/*/config.json")):
                name = folder.name.removeprefix("models--").replace("--", "/")
                found.append(Listing(f"{self.id}:{name}", name, True))
        return found

    def describe(self, config: ModelConfig, rest: str) -> ModelFacts:
        """From the cache if the model is there, else from what the hub tells (config and file sizes, a few kilobytes)."""
        repository, revision = split_spec(rest)
        folder = self._whole(config, repository, revision)
        if folder is not None:
            return describe_folder(folder, config, spec=config.spec, name=_name(repository))
        return _describe_remote(repository, revision, config)

    def load(self, config: ModelConfig, rest: str, device: str, progress: Progress) -> LoadedModel:
        """Download what is missing (that time is not load time), then load from the cache."""
        repository, revision = split_spec(rest)
        folder = self._whole(config, repository, revision) or download(repository, revision, config, progress)
        return load_folder(folder, config, device, progress, spec=config.spec, name=_name(repository))

    def _whole(self, config: ModelConfig, repository: str, revision: str | None) -> Path | None:
        """The cached folder if everything is in it. Offline an incomplete one is returned too: its own refusal says more."""
        folder = cached(repository, revision)
        if folder is None:
            return None
        try:
            describe_folder(folder, config, spec=config.spec, name=_name(repository))
        except Refusal:
            return folder if _is_offline() else None
        return folder


def _name(repository: str) -> str:
    return repository.rpartition("/")[2]


def _describe_remote(repository: str, revision: str | None, config: ModelConfig) -> ModelFacts:
    import huggingface_hub

    with _explained(repository, revision):
        info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = needed_files(list(sizes), repository, config)
        if "config.json" not in names:
            raise Refusal(Reason("models.no-config-json", repository=repository))
        path = Path(huggingface_hub.hf_hub_download(repository, "config.json", revision=revision))
    settings = read_config(path.parent)
    task, architecture = task_from_config(settings, config, repository)
    weights = [name for name in names if name.endswith((".safetensors", ".bin"))]
    file_bytes = sum(sizes[name] for name in weights)
    told = getattr(info, "safetensors", None)
    stored = str(settings.get("dtype") or settings.get("torch_dtype") or "float32")
    parameters = int(told.total) if told is not None else file_bytes // ITEM_BYTES.get(stored, 4)
    facts = ModelFacts(
        spec=config.spec,
        name=_name(repository),
        architecture=architecture,
        task=task,
        parameters=parameters,
        layers=blocks(settings),
        dtype=config.dtype,
        weight_bytes=parameters * ITEM_BYTES[config.dtype],
        file_bytes=file_bytes,
        context_length=context_length(path.parent, settings),
        has_tokenizer=any(name.startswith(("tokenizer.", "vocab.", "spiece.")) for name in names),
        stored_as=f"safetensors {stored}" if weights[0].endswith(".safetensors") else "pickle",
    )
    return dataclasses.replace(facts, load_bytes=facts.weight_bytes)
