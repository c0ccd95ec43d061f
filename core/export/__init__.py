"""Ways out of Tickscope: one file per format."""
