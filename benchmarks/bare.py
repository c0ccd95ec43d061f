"""The bare `generate` loop in a process of its own: what Tickscope's headline must agree with.

    python -m benchmarks.bare [--pass int8_dynamic] [--new-tokens 64] [--repeats 5] [--serve]

With `--serve` it measures once for each line on its standard input. Prints one JSON line each: TPOT in ns, the median over
requests. Nothing of Tickscope runs while it measures: one stopping criterion notes when tokens become visible (a list append);
passes are applied by Tickscope's own code before.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from typing import Any

from benchmarks.arguments import work_arguments
from core.config import ModelConfig, PassConfig
from core.models import catalog
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from core.progress import Progress


def main() -> None:
    """Measure and print."""
    parser = work_arguments()
    asked = parser.parse_args()

    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    torch.set_num_threads(asked.threads)
    loaded = catalog.load(ModelConfig(asked.model), "cpu", Progress())
    subject = Subject(loaded.model, "text-generation", Execution(asked.threads), 512, 1)
    plan.apply_all(subject, [PassConfig(name) for name in asked.passes])
    stamps: list[int] = []
    never = torch.zeros(1, dtype=torch.bool)

    class Stamp(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_kwargs: Any) -> Any:
            stamps.append(time.perf_counter_ns())
            return never

    criteria = StoppingCriteriaList([Stamp()])
    assert loaded.tokenizer is not None
    inputs = loaded.tokenizer([asked.prompt], return_tensors="pt")

    def measure() -> None:
        tpot, gaps = [], []
        for number in range(asked.warmup + asked.repeats):
            stamps.clear()
            loaded.model.generate(
                **inputs,
                max_new_tokens=asked.new_tokens,
                min_new_tokens=asked.new_tokens,
                do_sample=False,
                stopping_criteria=criteria,
            )
            if number >= asked.warmup:
                tpot.append((stamps[-1] - stamps[0]) / (len(stamps) - 1))
                gaps += [later - earlier for earlier, later in itertools.pairwise(stamps)]
        print(json.dumps({"tpot_ns": statistics.median(tpot), "itl_ns": statistics.median(gaps)}), flush=True)

    for _ in sys.stdin if asked.serve else ("once",):
        measure()


if __name__ == "__main__":
    main()
