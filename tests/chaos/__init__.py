"""Real processes, real faults: executions must be exactly right at the end."""
