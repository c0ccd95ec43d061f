"""Models that misbehave, for ``py:``: each ends its process, or hangs in it, at the call that ``TICKSCOPE_TEST_AT`` names.

By default after 0.6 s at least: what a process has not sent in its last 0.2 s dies with it.
"""

from __future__ import annotations

import ctypes
import os
import threading

import torch

from tests.support.tiny import tiny_llama

CALLS = [0]
SLOW = threading.Event()


def _model(end) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = tiny_llama(2)
    plain = model.model.layers[1].mlp.forward
    at = int(os.environ.get("TICKSCOPE_TEST_AT", "300"))

    def forward(*args, **kwargs):
        CALLS[0] += 1
        if CALLS[0] == at:
            end()
        SLOW.wait(0.002)
        return plain(*args, **kwargs)

    model.model.layers[1].mlp.forward = forward
    return model, {"input_ids": torch.arange(8)[None]}


def sound() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return _model(lambda: None)


def segfault() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return _model(lambda: ctypes.string_at(0))


def leave() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return _model(lambda: ctypes.CDLL(None)._exit(3))


def abort() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return _model(os.abort)


def hang() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """With Python's lock held, so that no other thread of the process runs."""
    return _model(lambda: ctypes.PyDLL(None).sleep(1000))


def out_of_memory() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """As the system's killer does it."""
    return _model(lambda: os.kill(os.getpid(), 9))
