"""Ways into Tickscope: one file per format of other tools."""
