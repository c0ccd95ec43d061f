"""Does it matter where weights lie? A/A tests with the weights laid once, and laid anew before each round.

    python -m benchmarks.placement [--tries 6] [--rounds 40] [--model SPEC] [--threads 2] [--new-tokens 64]

Each try loads both sides anew and is judged as ever; the two ways take turns. Told: B's TPOT over A's with its interval,
and whether that interval holds 1, which is the truth. With weights laid once it often does not: one copy is steadily better
placed, and an interval of noise knows nothing of it (which is why a floor is assumed). Nothing is kept. Leave the machine be.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from typing import TYPE_CHECKING

from core.config import ABTestConfig, ModelConfig, RunConfig, TargetConfig, WorkloadConfig

if TYPE_CHECKING:
    from core.program import Program

SMALL = (
    "arch:llama?hidden_size=256&intermediate_size=768&num_hidden_layers=8&num_attention_heads=4&num_key_value_heads=4"
    "&vocab_size=8000"
)


def tried(program: Program, side: RunConfig, rounds: int) -> tuple[float, float, float, int]:
    """One A/A test: the ratio of TPOT, its interval, and before how many rounds weights were laid anew."""
    program.unload()
    program.start_trial(ABTestConfig((side, side), most_rounds=rounds))
    program.join()
    state = program.trial
    if state is None or not state.verdicts or state.runs[0].facts.trial is None:
        raise SystemExit("a test did not finish")
    found = state.verdicts[0].metrics["tpot_ns"]
    if found.ratio is None or found.low is None or found.high is None:
        raise SystemExit("too few rounds for an interval")
    return found.ratio, found.low, found.high, state.runs[0].facts.trial.laid


def main() -> None:
    """Try both ways by turns, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tries", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--model", default=SMALL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder  # where floors.json would go on Linux

        from core.execution import placement
        from core.program import Program

        anew = placement.renew
        if not placement.can_renew():
            raise SystemExit("this system does not let pages be moved, or makes huge ones by itself")
        workload = WorkloadConfig(prompt_tokens=16, new_tokens=asked.new_tokens)
        side = RunConfig(ModelConfig(asked.model), (), TargetConfig("cpu", asked.threads), workload)
        found: dict[str, list[tuple[float, float, float, int]]] = {"laid once": [], "laid anew": []}
        program = Program(keep_session=False)
        try:
            for number in range(1, asked.tries + 1):
                for way, tries in found.items():
                    placement.renew = anew if way == "laid anew" else (lambda _model: 0)
                    tries.append(tried(program, side, asked.rounds))
                    ratio, low, high, laid = tries[-1]
                    holds = "holds 1" if low <= 1 <= high else "does NOT hold 1"
                    print(f"{number} {way}: {ratio:.4f} ({low:.4f}–{high:.4f}) {holds}; anew before {laid} rounds", flush=True)
        finally:
            program.close()
    for way, tries in found.items():
        held = sum(low <= 1 <= high for _, low, high, _ in tries)
        off = math.sqrt(sum(math.log(ratio) ** 2 for ratio, *_ in tries) / len(tries))
        print(f"{way}: {held} of {len(tries)} intervals hold 1; ratios {100 * off:.2f} % from it (root mean square)")


if __name__ == "__main__":
    main()
