"""Studies in from a PACS or a folder, a ledger that loses nothing, results back.

Data goes this way: `sources` list series, `intake` waits until each is complete and asks the
`rules`, the `ledger` keeps a job for each system, `worker` fetches, runs, sends and verifies it,
and `service` runs all of that until it is asked to end. Settings are one file, see `config`.
"""
