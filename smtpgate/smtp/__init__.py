"""PURE. SMTP as bytes <-> events and replies, both directions.

No file here opens a socket, sleeps, reads a clock, draws a random number or logs. What is parsed is written
anew from the parsed values when it is sent on, so nothing passes through unread. Knows neither `policy` nor
`routing`.
"""
