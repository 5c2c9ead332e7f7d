"""`hilum desk`: a page in the browser to send studies, to watch them and to see their results.

`uploads` takes files into numbered ones, `desk` keeps studies and their jobs in the gateway's
ledger and spool, `work` runs them, `scene` prepares what the viewer shows, `events` says what
changes, `web` serves all of that and `page/` to the browser, past the `guard`.
"""
