"""Many studies on one machine or a cluster: planned in a ledger, each result there exactly once."""
