"""PURE. Which pool, and which backend of it.

router (first matching route), pool (the pool as a decision: open, refuse; the caller acts and reports back).
No file here opens a connection or reads a clock. Knows neither `smtp` nor `policy`.
"""
