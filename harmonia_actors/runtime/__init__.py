"""The asyncio shell around the core: drives executions, hands out attempts, runs them, tells.

Nothing here imports Ray or Redis: what the runtime needs from outside are the protocols in
`ports` and `persistence.store`, so that all of it runs in one process in tests and simulation.
"""
