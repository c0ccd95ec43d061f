"""The commands of ``cli.md``, one module per thing that a person asks for."""
