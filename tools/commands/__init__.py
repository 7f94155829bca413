"""gatectl: what operators type. A checkout runs it as tools/gatectl; installed, this package is smtpgate_commands,
so its modules name each other relatively.
"""
