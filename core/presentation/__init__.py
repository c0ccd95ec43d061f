"""How charts look, for the window (pyqtgraph) and for exported figures (matplotlib) alike: colours, marks, ticks."""
