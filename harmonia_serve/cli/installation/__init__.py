"""The local installation that `harmonia up` owns: lock, store, Ray, Serve, and the watch over them.

`watchdog` is the process that a person sees. It runs no Ray: Ray's driver is a process of its own
(`ray_process`), so that a Ray that dies takes nobody with it and can be started again.
"""
