"""The face: the only floor that may import Qt."""
