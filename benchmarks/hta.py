"""Does Holistic Trace Analysis open an exported trace without complaint? Runs it, where it is installed, on one made-up run.

    python -m benchmarks.hta [--python PATH] [--trace FILE]

``--python`` is an interpreter that has ``HolisticTraceAnalysis`` (0.5.0 needs ``pandas<3``), best in an environment of its own:
its dependencies do not go with those here. Without it this interpreter is tried. The run has layers, operators, launches and
kernels, so that the functions about devices answer too. Exit status 1 if one of them fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from core.export.chrome_trace import write_trace
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_operators import with_operators

INSIDE = """
import sys
from hta.trace_analysis import TraceAnalysis
analysis = TraceAnalysis(trace_dir=sys.argv[1])
failed = 0
for name, switches in (
    ("get_temporal_breakdown", {"visualize": False}),
    ("get_idle_time_breakdown", {"visualize": False}),
    ("get_gpu_kernel_breakdown", {"visualize": False}),
    ("get_cuda_kernel_launch_stats", {"visualize": False}),
    ("get_queue_length_time_series", {}),
    ("get_profiler_steps", {}),
):
    try:
        print(name, getattr(analysis, name)(**switches), sep="\\n")
    except Exception as error:
        failed = 1
        print(name, "FAILED:", type(error).__name__, error)
sys.exit(failed)
"""


def main() -> int:
    """Export, hand over, print what it says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--trace", type=Path, help="another trace than the made-up one")
    asked = parser.parse_args()
    there = subprocess.run([asked.python, "-c", "import hta.trace_analysis"], capture_output=True, text=True, check=False)
    if there.returncode:
        print(
            "HolisticTraceAnalysis is not installed there; pip install HolisticTraceAnalysis 'pandas<3' in a new environment."
        )
        return 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json.gz"
        if asked.trace is None:
            write_trace(with_operators(synthetic_run(), on_device=True), path)
        else:
            path = Path(folder) / asked.trace.name
            path.write_bytes(asked.trace.read_bytes())
        environment = {**os.environ, "HTA_DISABLE_NS_ROUNDING": "1"}
        # Not in this folder: a module called hta here would hide the package.
        done = subprocess.run([asked.python, "-c", INSIDE, folder], env=environment, cwd=folder, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
