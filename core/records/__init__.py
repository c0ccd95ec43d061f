"""What is known of a run, and of the machine: values that every room above reads and none of them owns."""
