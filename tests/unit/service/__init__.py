"""Tests of the services: the engine behind the routes, without HTTP and without Ray."""
