"""The only code that speaks to Ray's core: thin actors around the objects of `runtime`."""
