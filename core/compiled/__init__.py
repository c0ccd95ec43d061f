"""Steps of fixed shape as compiled graphs: captured once, kept on disk, called without dynamo."""
