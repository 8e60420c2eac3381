"""W8, the fan-out of events: what `benchmarks.events` is put together from."""
