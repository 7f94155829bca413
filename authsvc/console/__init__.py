"""The operator's page: what runs, what is throttled and why, and the few things that are changed by hand.

A Flask application of its own at an address of its own (authsvc.door), so that the port that mail servers ask knows
nothing of it. Off unless `console` is configured. `gate` keeps strangers out, `entry` lets operators in,
`pages` answer GET and change nothing, `actions` answer POST. What they show is put together by pure modules: `fleet`
(the reports of all workers), `traffic` and `plots` (the last minutes), `rulebook` (the policies as compiled); `edits`
remembers what the folder said before.

Reads the shared store and a board of reports; refuses to know sessions, sockets and how limits decide.
"""
