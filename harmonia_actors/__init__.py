"""Harmonia's engine: a pure core, its asyncio runtime, the Ray actors and the components.

Importing this package imports nothing else, so that `harmonia_actors.core` never loads Ray.
"""
