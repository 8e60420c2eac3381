"""The surfaces of Harmonia: REST, WebSocket, SSE, the Python client and the command line."""
