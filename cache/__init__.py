"""Arrays, identities and statuses on disk; knows no network and no stage."""
