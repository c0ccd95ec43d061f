"""The optimizations: one file per pass."""
