"""What runs in a worker process: loading and running scripts, capturing output, reporting failures."""
