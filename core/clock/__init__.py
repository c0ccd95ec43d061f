"""When the clock runs, and who may come in while it does not."""
