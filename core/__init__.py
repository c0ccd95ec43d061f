"""The program: configure, run, store, analyse, export, command line. No Qt."""
