"""Where a run is carried out: on a thread of this process, or in a process of its own. One file each."""
