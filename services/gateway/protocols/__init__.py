"""One module per wire protocol: what the client says becomes a session, its transcript messages."""
