"""Plots: pyqtgraph widgets that draw the series of core.analysis.series."""
