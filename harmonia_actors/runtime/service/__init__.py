"""What the API can do, without HTTP: workflows, executions, templates, checkpoints, keys.

Together these services are the gateway that the routes call. They read and write the store and
speak to execution actors through the port `Launcher`; they know neither Ray nor Redis.
"""
