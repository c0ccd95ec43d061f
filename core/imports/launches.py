"""Kernels and copies run later than they were launched: which launch each belongs to, also where several ranks were merged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.imports.places import RUNTIME
from core.imports.rows import Rows
from core.imports.slices import Slices
from core.imports.steps import Steps
from profilers.trace import NOT_MEASURED, Array

_CLEAR_SHARE = 0.8
"""Of the kernels of a device, so many have to point to one process, or it is not clear whose they are."""

_MOST_PROCESSES = 64
"""With more that launch, which one a kernel belongs to is not looked for: it takes a table of all kernels for each."""

_UNCLEAR = "kernels and copies that may be of several merged ranks, and are in no layer and step"


def follow_launches(rows: Rows, steps: Mapping[int, Steps], moment: Array, layer: Array, slices: Slices) -> None:
    """Put kernels and copies into the moment and layer of their launch, which has the same correlation and process."""
    joined = rows["correlation"] > 0
    device = np.flatnonzero(joined & rows.on_device)
    launches = np.flatnonzero(joined & (rows.place == RUNTIME))
    launching = np.unique(rows.process[launches])
    if len(launching) > 1:
        owner = _owners(rows, device, launches, launching, slices)
        _by_time(rows, steps, owner, moment)
    for process in launching.tolist():
        mine = launches[rows.process[launches] == process]
        wanted = device if len(launching) == 1 else device[owner[device] == process]
        at = _launch_of(rows, wanted, mine)
        found = at >= 0
        moment[wanted[found]] = moment[at[found]]
        layer[wanted[found]] = layer[at[found]]


def _launch_of(rows: Rows, device: Array, launches: Array) -> Array:
    """The row of the launch of each kernel among these launches, -1 where none is."""
    if not len(launches) or not len(device):
        return np.full(len(device), NOT_MEASURED, np.int64)
    launches = launches[np.argsort(rows["correlation"][launches], kind="stable")]
    keys = rows["correlation"][launches]
    at = np.minimum(np.searchsorted(keys, rows["correlation"][device]), len(keys) - 1)
    return np.where(keys[at] == rows["correlation"][device], launches[at], NOT_MEASURED)


def _owners(rows: Rows, device: Array, launches: Array, launching: Array, slices: Slices) -> Array:
    """The process that launched on each kernel's device, per slice; -1: not known, or no kernel.

    Every process counts its correlations from 1, so that one number means a launch in each. A kernel whose number only one
    process has tells whose its device is; failing those, the last launch before the kernel does.
    """
    owner = np.full(len(rows.end), NOT_MEASURED, np.int64)
    if len(launching) > _MOST_PROCESSES:
        slices.miss(_UNCLEAR, len(device))
        return owner
    candidates = [_launch_of(rows, device, launches[rows.process[launches] == process]) for process in launching.tolist()]
    there = np.stack(candidates) >= 0
    starts = np.where(there, rows["ts_ns"][np.maximum(np.stack(candidates), 0)], np.iinfo(np.int64).min)
    starts[starts > rows["ts_ns"][device]] = np.iinfo(np.int64).min
    only = there.sum(axis=0) == 1
    likely = np.where(only, there.argmax(axis=0), starts.argmax(axis=0))
    known = only | (starts.max(axis=0, initial=np.iinfo(np.int64).min) > np.iinfo(np.int64).min)
    of_device = rows.process[device]
    unclear = 0
    for each in np.unique(of_device).tolist():
        mine = of_device == each
        sure = mine & (only if (mine & only).any() else known)
        votes = np.bincount(likely[sure], minlength=len(launching))
        if votes.sum() and votes.max() >= _CLEAR_SHARE * votes.sum():
            owner[(rows.process == each) & rows.on_device] = launching[votes.argmax()]
        else:
            unclear += int(mine.sum())
    slices.miss(_UNCLEAR, unclear)
    return owner


def _by_time(rows: Rows, steps: Mapping[int, Steps], owner: Array, moment: Array) -> None:
    """Kernels without a launch lie in the steps of the process that their device belongs to, and in none if that is unknown."""
    if len(steps) == 1:
        return
    moment[rows.on_device] = NOT_MEASURED
    for process, one in steps.items():
        mine = owner == process
        moment[mine] = one.of(rows["ts_ns"][mine])
