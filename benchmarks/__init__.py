"""Figures that anyone can check: each file is a command, and compares in interleaved pairs."""
