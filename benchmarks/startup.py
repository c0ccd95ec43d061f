"""How long until the window is there? From process start to its first painted frame, and whether torch was imported by then.

python -m benchmarks.startup [--runs 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

CHILD = """
import sys, time, psutil
from PySide6.QtCore import QObject, QEvent, QTimer
import gui.app
class Watch(QObject):
    def eventFilter(self, thing, event):
        if event.type() == QEvent.Type.Paint and thing.inherits("QMainWindow"):
            born = psutil.Process().create_time()
            import datetime
            now = datetime.datetime.now().timestamp()
            print(f"{now - born:.3f} {'torch' in sys.modules}", flush=True)
            QTimer.singleShot(0, lambda: __import__("os")._exit(0))
        return False
app = gui.app._application()
watch = Watch()
app.installEventFilter(watch)
sys.exit(gui.app.main([]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    took = []
    for number in range(asked.runs + 1):
        words = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout.split()
        if number:  # the first one warms the disk cache
            took.append(float(words[0]))
            assert words[1] == "False", "torch was imported before the window was there"
    print(f"window after {statistics.median(took):.2f} s (median; {min(took):.2f} to {max(took):.2f}), torch not imported")


if __name__ == "__main__":
    main()
