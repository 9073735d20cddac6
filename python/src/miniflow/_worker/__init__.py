"""What runs in worker processes. Never imported by a host."""
