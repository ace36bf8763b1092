"""The one virtual clock, the cost model, and the ledger."""
