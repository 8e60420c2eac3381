"""The `harmonia` command: one file per group of commands, all of them clients of the HTTP API.

Only `installation` starts processes, and only its Ray process imports Ray.
"""
