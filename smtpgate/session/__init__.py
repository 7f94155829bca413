"""One session's straight line, in plain blocking code against ports (Protocols in `ports`).

Imports no IO library: what reads, writes, sleeps, logs or asks is handed in. One greenlet runs one session, so
blocking here blocks nobody else.
"""
