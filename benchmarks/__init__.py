"""What this implementation's speed and memory are measured by, against the plain way of doing the same."""
