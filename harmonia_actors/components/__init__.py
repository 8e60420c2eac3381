"""Components: what tasks call. The contract and the registry, and those that ship with Harmonia."""
