"""PURE. What an operator is told of the policies: what they mean for a session, and what an edit changes.

session (event by event, with the store's balances handed in), facts (a question's words -> Facts), difference (two
folders, entry by entry), wording (numbers and sentences). gatectl and the console both say what is said here, so they
name the same rule and line. Owns no rule of its own: `policy`, `routing` and `snapshot` decide as in a running proxy.
"""
