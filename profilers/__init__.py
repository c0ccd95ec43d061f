"""The instruments: they observe a run and write what they saw. No Qt, nothing from core."""
