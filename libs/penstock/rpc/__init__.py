"""gRPC as Penstock uses it: identity, domain errors, channels and one server per process.

This package imports nothing by itself: `errors`, `channels`, `paging`, `masks` and `structs` need the base install only
(the SDK uses them), while `server`, `auth` and `tokens` belong to the services.
"""
