"""One module per system: how it is started, runs what it is told, and is stopped."""
