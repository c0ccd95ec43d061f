"""Linear layers that hold their weight in fewer bits: int8 by row, int4 by group, float8 by row."""
