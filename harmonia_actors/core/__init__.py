"""The pure core: what an execution does next, decided without Ray, Redis, asyncio, clock or log.

    Execution.handle(*stimuli) -> Decision(events, commands, changed)

Time comes in with each stimulus, luck is derived from ids, the order of work is the order of
definition. The same stimuli give the same decisions, byte for byte. Nothing here may import a
sibling package.
"""
