"""The auth service: nginx's auth_http protocol over HTTP, users and passwords, throttling, routes.

`service` decides in plain functions over frozen values; Flask only parses and renders (`auth`, `health`), and
`wsgi` is the composition root. May import smtpgate's pure packages and the drivers that it shares with the
proxy, never `smtpgate.session`; smtpgate never imports this package.
"""
