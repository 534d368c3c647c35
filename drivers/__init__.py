"""The drivers: each kind of thing we manage has a contract, its implementations, and a fake that passes the same tests."""
