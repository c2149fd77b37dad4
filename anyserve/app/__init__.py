"""What users write their handlers with. It knows nothing of processes, buses or engines."""
