"""The views behind the tabs."""
