"""How long until the window is there? From process start to its first painted frame, and whether torch was imported by then.

python -m benchmarks.startup [--runs 7]
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys

CHILD = """
import datetime, os, sys
import gui.app

def told():
    took = datetime.datetime.now().timestamp() - float(sys.argv[1])
    print(f"{took:.3f} {'torch' in sys.modules}", flush=True)
    os._exit(0)

make = gui.app._window

def watched(*arguments):
    app, window = make(*arguments)
    window.build_views = told  # what main() does as soon as the frame is painted
    return app, window

gui.app._window = watched
sys.exit(gui.app.main([]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # warm means: with bytecode, as on any machine after the first start
    took = []
    for number in range(asked.runs + 1):
        now = str(datetime.datetime.now().timestamp())  # a process's own start time is known to a second only
        command = [sys.executable, "-c", CHILD, now]
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if number:  # the first one warms the disk cache and writes bytecode
            took.append(float(words[0]))
            assert words[1] == "False", "torch was imported before the window was there"
    print(f"window after {statistics.median(took):.2f} s (median; {min(took):.2f} to {max(took):.2f}), torch not imported")


if __name__ == "__main__":
    main()
