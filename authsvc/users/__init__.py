"""Where users are kept: files, Redis, SQL databases, asked in order, behind caches and breakers.

Knows nothing of HTTP, of methods to log in, and of limits.
"""
