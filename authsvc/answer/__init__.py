"""One question of nginx's auth_http protocol and its answer: the wire, the order of steps, limits, the way.

The only rooms that know the protocol's words.
"""
