"""The commands of ``cli.md``, one module per thing that a person asks for, and the exit statuses they share."""

DONE, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130
