"""The only place for gevent, sockets, TLS, Redis, HTTP, files, logging and metrics.

Each driver implements a port of `session` or `policy`, translates the outside's exceptions once, at the seam,
and decides nothing that a pure module could decide.
"""
