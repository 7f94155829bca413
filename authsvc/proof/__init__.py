"""What proves that somebody is a user: stored passwords and their schemes, challenges, certificates, tokens.

Knows nothing of HTTP, of limits, and of where users are kept.
"""
