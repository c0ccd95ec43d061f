"""The noise floors of this machine: what its A/A tests found, by all that a floor depends on, kept beside the sessions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from core import paths
from core.config import RunConfig
from core.messages.reason import Reason
from core.records.conditions import FLOOR, asked_by
from core.records.run import Run, RunFacts

SCHEMA = 1
ENOUGH_TESTS = 5
"""A floor below the assumed one counts after so many A/A tests: one may be quiet by chance."""

MOST_TESTS = 10
MOST = 1e6
"""Of a relative difference that was found; JSON can hold numbers that no float can."""
ASSUMED_FLOOR = 0.01
"""Where no A/A test was made: two copies of one model in one process differed by 0.3 to 0.7 % (SmolLM2, a VM of 2 cores), by
where they lie in memory and not by chance; more rounds would only make that plainer. A copy that stays over several tests is
ahead, or behind, in all of them. Giving the weights other pages before each round was tried, and took nothing of it away.
"""

DAMAGED = ".damaged"


class NoiseFloors:
    """A small JSON file. A damaged one is set aside and begun anew: floors can be measured again, A/B tests must not fail.

    Args:
        path: the file; None for ``floors.json`` in the user's data folder. It need not exist.
    """

    def __init__(self, path: Path | None = None) -> None:
        folder = Path(platformdirs.user_data_dir("tickscope", appauthor=False))
        self.path = folder / "floors.json" if path is None else path

    def record(self, run: Run, floors: Mapping[str, float]) -> Reason | None:
        """Keep the floors that an A/A test of this run found (relative differences by metric), beside those of older ones.

        Returns:
            Why they could not be kept, as one sentence; None where they were, or where there is nothing to keep.
        """
        usable = _usable(floors)
        if not usable:
            return None
        about = conditions(run.config, run.facts)
        entry = {"conditions": about, "created": datetime.now(UTC).isoformat(timespec="seconds"), "floors": usable}
        try:
            kept = self._read(set_aside=True)
            before = _tests(kept.get(fingerprint(about)))
            kept[fingerprint(about)] = {**entry, "tests": [*before, usable][-MOST_TESTS:]}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
            partial.write_text(json.dumps({"schema": SCHEMA, "floors": kept}, indent=1), encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            problem = error.strerror or str(error)
            return Reason("records.floor-not-kept", path=str(self.path), problem=problem)
        return None

    def sweep(self) -> None:
        """Remove what processes left that were killed while they wrote; one that lives may still be writing."""
        for partial in self.path.parent.glob(f"{self.path.name}.*.part"):
            writer = partial.name.split(".")[-2]
            if not (writer.isdigit() and psutil.pid_exists(int(writer))):
                with contextlib.suppress(OSError):
                    partial.unlink()

    def find(self, run: Run | RunConfig, facts: RunFacts | None = None) -> dict[str, float] | None:
        """The floors found under the same conditions, whatever passes are on; None where there are none.

        By metric the largest of the last ten A/A tests. One below the assumed floor is left out until five A/A tests said so.

        Args:
            run: a run, or what one is asked to do.
            facts: with a ``RunConfig``, what is known of the machine (environment, target, threads).
        """
        if isinstance(run, Run):
            config, known = run.config, run.facts
        else:
            config, known = run, facts or RunFacts()
        entry = self._read().get(fingerprint(conditions(config, known)))
        tests = _tests(entry)
        largest = {metric: max(test.get(metric, 0.0) for test in tests) for metric in {name for test in tests for name in test}}
        enough = len(tests) >= ENOUGH_TESTS
        return {metric: floor for metric, floor in largest.items() if enough or floor >= ASSUMED_FLOOR} or None

    def _read(self, *, set_aside: bool = False) -> dict[str, dict[str, Any]]:
        """The entries that make sense, by fingerprint."""
        try:
            whole = json.loads(paths.read_text(self.path))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):  # not to be read, not UTF-8, not JSON
            whole = None
        entries = whole.get("floors") if isinstance(whole, dict) and whole.get("schema") == SCHEMA else None
        if not isinstance(entries, dict):
            if set_aside and self.path.exists():
                self.path.replace(self.path.with_name(self.path.name + DAMAGED))
            return {}
        return {
            key: entry for key, entry in entries.items() if isinstance(entry, dict) and isinstance(entry.get("floors"), dict)
        }


def conditions(config: RunConfig, facts: RunFacts) -> dict[str, Any]:
    """All that a floor depends on, ready for JSON. Passes do not count: a floor is about the machine and the amount of work."""
    found: dict[str, Any] = {}
    for one in asked_by(FLOOR):
        part = one.id.rpartition(".")[0]
        (found.setdefault(part, {}) if part else found)[one.name] = one.of(config, facts)
    return found


def fingerprint(about: Mapping[str, Any]) -> str:
    """A short name for the conditions."""
    text = json.dumps(about, sort_keys=True, default=list, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _tests(entry: Mapping[str, Any] | None) -> list[dict[str, float]]:
    """The floors of each A/A test in an entry, oldest first (files of earlier versions hold one)."""
    if entry is None:
        return []
    tests = entry.get("tests")
    listed = tests if isinstance(tests, list) else [entry["floors"]]
    return [usable for test in listed if isinstance(test, dict) and (usable := _usable(test))]


def _usable(floors: Mapping[str, Any]) -> dict[str, float]:
    """Without what is no number, not finite or negative (a file may have been edited)."""
    return {
        str(metric): float(value)
        for metric, value in floors.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST
    }
