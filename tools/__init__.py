"""Commands that people run. Nothing of smtpgate or authsvc imports this folder.

`tools/NAME` does the set-up and starts `tools/NAME.py`, which may import all of the project.
"""
