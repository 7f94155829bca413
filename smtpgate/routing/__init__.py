"""PURE. Which pool, and which backend of it.

router (first matching route), pool (the pool as a decision: open, wait, refuse; the caller acts and reports back)
over balance (which of several) and health (what is known of each), schema and poolspec (YAML's keys -> model).
No file here opens a connection or reads a clock. Knows neither `smtp` nor `policy`.
"""
