"""The engine: moments, the gate, and the one worker thread."""
